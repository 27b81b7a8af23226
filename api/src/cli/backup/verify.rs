//! `reckon backup verify`: loads all of it, as a restore would, and throws that away.

use std::process::ExitCode;

use anyhow::{Context, Result};
use eventstore_disk::{Store, StoreConfig};
use seams::{Directory, FileDirectory};
use serde_json::json;
use server::archive::{Archive, Chain, load, restore};
use std::sync::Arc;
use uuid::Uuid;

use super::super::output::{self, Format};
use super::{URLS, progress, size};

#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  reckon backup verify --from s3://backups/reckon

It reads every file, and takes room for the history in the directory of temporary files (TMPDIR) while it does.

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
    let chain = Chain::of(&archive, cluster).await?;
    let (first, last) = chain.revisions();
    let bar = progress(last);
    let folder = tempfile::Builder::new()
        .prefix("reckon-verify-")
        .tempdir()
        .context("no directory for temporary files")?;
    let directory: Arc<dyn Directory> = Arc::new(FileDirectory::open(folder.path())?);
    let loaded = load(&archive, &chain, &*directory, "state", |revision| {
        bar.set_position(revision);
    })
    .await;
    bar.finish_and_clear();
    let loaded = loaded?;
    let store = Store::open(directory, "state", StoreConfig::default())?;
    let verified = store.verify(store.horizon().max(1)..=u64::MAX, |_| {})?;
    let answer = json!({
        "ok": true, "cluster": cluster, "first": first, "last": last, "time": chain.time().milli(), "events": loaded.events,
        "versions": verified.versions, "bytes": chain.bytes(), "digest": loaded.view.digest.to_string(),
    });
    output::print(args.output, &answer, || {
        format!(
            "Verified {} events of cluster {cluster}, revisions {first} to {last} (up to {}), {}; the digest is {}.\n",
            loaded.events,
            chain.time().milli(),
            size(chain.bytes()),
            loaded.view.digest
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
