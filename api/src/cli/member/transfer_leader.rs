//! `reckon member transfer-leader`: another server leads.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{Connection, act};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member transfer-leader             to whichever voter is furthest
  reckon member transfer-leader server-3")]
pub struct Args {
    /// Who is to lead: a name, or an id
    name: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let body = match &args.name {
        Some(name) => json!({ "to": name }),
        None => json!({}),
    };
    let path = "/reckon/v1/members/transfer-leader";
    act(&args.connection, path, &body, "Leadership has moved.").await
}
