//! `reckon backup create`: asks a server for the files that are not there yet, and puts them there.

use std::process::ExitCode;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use eventstore_disk::backup::Continue;
use http::StatusCode;
use serde_json::{Value, json};
use server::archive::{Archive, ArchiveError, Next, Source, write};
use uuid::Uuid;

use super::super::client::{Client, Failure};
use super::super::{Connection, output};
use super::{URLS, progress, size};

#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  reckon backup create --to file:///var/backups/reckon
  reckon backup create --to s3://backups/reckon

It holds the whole history, so that 'reckon restore --from URL --at MOMENT --data-dir DIR' can make a cluster as of any moment of it. Done
again, it writes what came since. 'reckon server --archive URL' does it all the time.

{URLS}"))]
pub struct Args {
    /// Where to
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let archive = Archive::begin(&args.to)?;
    let status = client.get("/reckon/v1/status").await?;
    let newest = status["revision"].as_u64().unwrap_or_default();
    let bar = progress(newest);
    let source = OfServer(&client);
    let written = write(&archive, &source, None, |written| {
        bar.set_position(written.revision.min(newest));
    })
    .await;
    bar.finish_and_clear();
    let written = written?;
    let answer = json!({
        "url": args.to,
        "cluster": written.cluster,
        "revision": written.revision,
        "digest": written.digest.to_string(),
        "files": written.files,
        "bytes": written.bytes,
    });
    output::print(args.connection.output, &answer, || {
        let what = match written.files {
            0 => "there was nothing new".to_owned(),
            files => format!("{files} new files, {}", size(written.bytes)),
        };
        format!(
            "Backed up to revision {} at {}: {what}.\nTo make a cluster of it: reckon restore --from {} --data-dir DIR [--at REVISION|TIME]\n",
            written.revision, args.to, args.to
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A server's API.
struct OfServer<'a>(&'a Client);

#[async_trait]
impl Source for OfServer<'_> {
    async fn cluster(&self) -> Result<Uuid, ArchiveError> {
        let status = self.0.get("/reckon/v1/status").await.map_err(failed)?;
        let cluster = status["cluster"]
            .as_str()
            .and_then(|text| text.parse().ok());
        cluster.ok_or_else(|| {
            ArchiveError::Source("the server does not say which cluster it serves".to_owned())
        })
    }

    async fn base_page(&self, from: Option<Continue>) -> Result<Option<Bytes>, ArchiveError> {
        let from = from.map(|from| json!(from).to_string()).unwrap_or_default();
        let path = format!("/reckon/v1/backup/base?continue={}", encoded(&from));
        file(self.0.bytes(&path).await.map_err(failed)?)
    }

    async fn segment_after(&self, after: u64) -> Result<Next, ArchiveError> {
        let path = format!("/reckon/v1/backup/events?after={after}");
        match self.0.bytes(&path).await {
            Ok(answer) => Ok(file(answer)?.map_or(Next::Nothing, Next::Segment)),
            Err(Failure::Refused { code, .. }) if code == StatusCode::GONE => Ok(Next::Pruned),
            Err(failure) => Err(failed(failure)),
        }
    }
}

/// JSON says that there is none.
fn file(answer: Bytes) -> Result<Option<Bytes>, ArchiveError> {
    Ok(match serde_json::from_slice::<Value>(&answer) {
        Ok(_) => None,
        Err(_) => Some(answer),
    })
}

fn failed(failure: Failure) -> ArchiveError {
    ArchiveError::Source(failure.to_string())
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
