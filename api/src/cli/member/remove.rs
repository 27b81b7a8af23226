//! `reckon member remove`: a server leaves, or an invitation is taken back.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::super::resource::escape;
use super::{Connection, act};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member remove server-2
  reckon member remove 2

The leader hands over leadership before it goes. Refused is what would leave no majority of servers that answer. The id is used
up; the directory can be deleted. A server that was removed ends by itself, when it is told.")]
pub struct Args {
    /// Its name, or its id
    name: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let path = format!("/reckon/v1/members/{}/remove", escape(&args.name));
    let done = format!("{} is no member any more.", args.name);
    act(&args.connection, &path, &json!({}), &done).await
}
