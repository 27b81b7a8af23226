//! `reckon member history`: who did what to a server.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::super::history;
use super::super::resource::escape;
use super::{Connection, output, why};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member history server-4
  reckon member history 4 -o json

Newest last. A server that is gone still has its history; by a name it is that of the last that had it.")]
pub struct Args {
    /// Its name, or its id
    name: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let path = format!("/reckon/v1/members/{}/history", escape(&args.name));
    let answer = args.connection.client()?.get(&path).await.map_err(why)?;
    let mut items = answer["items"].as_array().cloned().unwrap_or_default();
    items.sort_by_key(|item: &Value| item["revision"].as_u64());
    if items.is_empty() {
        bail!("nobody has done anything to {} yet", args.name);
    }
    output::print(args.connection.output, &json!({ "items": items }), || {
        history::text(&items)
    })?;
    Ok(ExitCode::SUCCESS)
}
