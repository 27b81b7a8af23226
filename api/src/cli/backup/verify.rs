//! `reckon backup verify`: loads all of it, as a restore would, and throws that away.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use server::archive::{Archive, Chain, Chains, Report, Verified, restore, verify};
use uuid::Uuid;

use super::super::output::{self, Format};
use super::{URLS, progress, size};

#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  reckon backup verify --from s3://backups/reckon

It reads every file, and takes room for the history in the directory of temporary files (TMPDIR) while it does. It says where there are gaps:
what was not archived for so long that the cluster no longer kept it. Files that are damaged, or missing between others, make it fail.

{URLS}"))]
pub struct Args {
    /// Where the backup is
    #[arg(long, value_name = "URL")]
    from: String,
    /// Of which cluster, where there are several
    #[arg(long, value_name = "ID")]
    cluster: Option<Uuid>,
    /// Print for programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let archive = Archive::open(&args.from)?;
    let cluster = restore::which(&archive, args.cluster).await?;
    let chains = Chains::of(&archive, cluster).await?;
    let newest = chains.all.iter().map(Chain::last).max();
    let bar = progress(newest.unwrap_or_default());
    let folder = tempfile::Builder::new()
        .prefix("reckon-verify-")
        .tempdir()
        .context("no directory for temporary files")?;
    let report = verify(&archive, &chains, folder.path(), |revision| {
        bar.set_position(revision);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    let stretches: Vec<Value> = report.sound.iter().map(stretch).collect();
    let gaps = report.gaps.iter();
    let gaps: Vec<Value> = gaps
        .map(|gap| json!({ "first": gap.first, "last": gap.last }))
        .collect();
    let newest = report.sound.last();
    let answer = json!({
        "ok": report.wrong.is_empty(), "cluster": cluster, "stretches": stretches, "gaps": gaps, "brokenOff": report.broken_off,
        "wrong": report.wrong, "last": newest.map(|newest| newest.chain.last()), "digest": newest.map(|newest| newest.digest.to_string()),
    });
    output::print(args.output, &answer, || text(cluster, &report))?;
    match report.wrong.len() {
        0 => Ok(ExitCode::SUCCESS),
        many => bail!("{many} of what the backup should have is damaged or missing"),
    }
}

fn stretch(verified: &Verified) -> Value {
    let chain = &verified.chain;
    json!({
        "first": chain.first(), "last": chain.last(), "begins": chain.begins().map(|begins| begins.milli()), "time": chain.time().milli(),
        "events": verified.events, "versions": verified.versions, "bytes": chain.bytes(), "digest": verified.digest.to_string(),
    })
}

fn text(cluster: Uuid, report: &Report) -> String {
    let sound = report.sound.iter().map(|verified| {
        format!(
            "Verified {} events of cluster {cluster}, {}, {}; the digest is {}.\n",
            verified.events,
            verified.chain,
            size(verified.chain.bytes()),
            verified.digest
        )
    });
    let gaps = report.gaps.iter();
    let gaps = gaps.map(|gap| format!("There is a gap: {gap} are not in this backup.\n"));
    let broken_off = match report.broken_off {
        0 => String::new(),
        pages => format!("{pages} pages are of bases that were never ended, and are not needed.\n"),
    };
    let wrong = report.wrong.iter().map(|wrong| format!("{wrong}\n"));
    sound.chain(gaps).chain([broken_off]).chain(wrong).collect()
}
