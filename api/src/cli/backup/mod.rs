//! `reckon backup`: history as files, from which a cluster can be made again as of any moment. A command a file.

mod create;
mod list;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the cluster's history to a URL, or what came since it was last done
    Create(create::Args),
    /// Show which clusters have a backup at a URL, and how far each reaches
    List(list::Args),
    /// Read all of a backup and check every checksum, hash and digest
    Verify(verify::Args),
}

pub async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Create(args) => create::run(args).await,
        Command::List(args) => list::run(args).await,
        Command::Verify(args) => verify::run(args).await,
    }
}

/// What a URL of an archive may be.
pub const URLS: &str = "\
A URL is file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX. Credentials and endpoints come from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT (with AWS_ALLOW_HTTP=true for one without TLS), GOOGLE_SERVICE_ACCOUNT,
AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY.";

/// How far a file-by-file work on a history has come; shown where a person looks.
pub fn progress(last: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} revision {pos} of {len}, {eta} left");
    ProgressBar::new(last).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// `12.3 MiB`
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
