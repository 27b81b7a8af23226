//! `reckon member list`: as the leader knows them.

use std::process::ExitCode;

use anyhow::Result;

use super::{Connection, output, text, why};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member list
  reckon member list -o json

A learner receives the log and doesn't vote. LAG is in entries of the log; ANSWERS says whether the leader has heard of it lately.")]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let members = args
        .connection
        .client()?
        .get("/reckon/v1/members")
        .await
        .map_err(why)?;
    output::print(args.connection.output, &members, || text(&members))?;
    Ok(ExitCode::SUCCESS)
}
