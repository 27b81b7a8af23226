//! `reckon backup list`: which clusters, from when to when; a cluster's history may have gaps.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use server::archive::{Archive, Chains, Moment};

use super::super::output::{self, Format, table};
use super::{URLS, size};

#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  reckon backup list --from s3://backups/reckon

A row is a stretch of history, any moment of which can be restored. A cluster has several where archiving was broken off for longer than its
history was kept: what lies between them is lost.

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
    let (mut gaps, mut wrong) = (Vec::new(), Vec::new());
    for cluster in archive.clusters().await? {
        let chains = match Chains::of(&archive, cluster).await {
            Ok(chains) => chains,
            Err(error) => {
                items.push(json!({ "cluster": cluster, "error": error.to_string() }));
                continue;
            }
        };
        items.extend(chains.all.iter().map(|chain| {
            json!({
                "cluster": cluster, "first": chain.first(), "last": chain.last(), "begins": chain.begins().map(|begins| begins.milli()),
                "time": chain.time().milli(), "events": chain.events(), "files": chain.files().count(), "bytes": chain.bytes(),
            })
        }));
        if let (true, Err(error)) = (chains.all.is_empty(), chains.holding(Moment::End)) {
            items.push(json!({ "cluster": cluster, "error": error.to_string() }));
            continue;
        }
        gaps.extend(
            chains
                .gaps()
                .into_iter()
                .map(|gap| json!({ "cluster": cluster, "first": gap.first, "last": gap.last })),
        );
        wrong.extend(chains.wrong.iter().map(ToString::to_string));
    }
    let answer = json!({ "url": args.from, "items": items, "gaps": gaps, "wrong": wrong });
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
                item["begins"].as_str().unwrap_or("its founding").to_owned(),
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
        let header = [
            "CLUSTER",
            "REVISIONS",
            "FROM",
            "UP TO",
            "EVENTS",
            "FILES",
            "SIZE",
        ];
        let gaps = gaps.iter().map(|gap| {
            let cluster = gap["cluster"].as_str().unwrap_or_default();
            let (first, last) = (&gap["first"], &gap["last"]);
            format!("Of cluster {cluster} revisions {first} to {last} are not there.\n")
        });
        let wrong = wrong.iter().map(|wrong| format!("{wrong}\n"));
        let below: String = gaps.chain(wrong).collect();
        table(&header, rows) + &below
    })?;
    Ok(ExitCode::SUCCESS)
}
