//! `reckon backup list`: which clusters, from when to when.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use server::archive::{Archive, Chain};

use super::super::output::{self, Format, table};
use super::{URLS, size};

#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  reckon backup list --from s3://backups/reckon

{URLS}"))]
pub struct Args {
    /// Where the backups are
    #[arg(long, value_name = "URL")]
    from: String,
    /// Print for programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let archive = Archive::open(&args.from)?;
    let mut items = Vec::new();
    for cluster in archive.clusters().await? {
        items.push(match Chain::of(&archive, cluster).await {
            Ok(chain) => {
                let (first, last) = chain.revisions();
                json!({
                    "cluster": cluster, "first": first, "last": last, "time": chain.time().milli(),
                    "events": chain.events(), "files": chain.base.len() + chain.segments.len(), "bytes": chain.bytes(),
                })
            }
            Err(error) => json!({ "cluster": cluster, "error": error.to_string() }),
        });
    }
    let answer = json!({ "url": args.from, "items": items });
    output::print(args.output, &answer, || {
        let rows = items.iter().map(|item| {
            let number = |field: &str| item[field].to_string();
            let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            if item["error"].is_string() {
                return vec![text("cluster"), format!("not of use: {}", text("error"))];
            }
            vec![
                text("cluster"),
                format!("{} to {}", number("first"), number("last")),
                text("time"),
                number("events"),
                number("files"),
                size(item["bytes"].as_u64().unwrap_or_default()),
            ]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return format!("There is no backup at {}.\n", args.from);
        }
        table(
            &["CLUSTER", "REVISIONS", "UP TO", "EVENTS", "FILES", "SIZE"],
            rows,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
