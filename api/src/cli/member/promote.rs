//! `reckon member promote`: a learner becomes a voter.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::super::resource::escape;
use super::{Connection, act};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member promote server-4

One that lags is refused, with by how much: it would hold up what is written.")]
pub struct Args {
    /// Its name, or its id
    name: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let path = format!("/reckon/v1/members/{}/promote", escape(&args.name));
    let done = format!("{} votes.", args.name);
    act(&args.connection, &path, &json!({}), &done).await
}
