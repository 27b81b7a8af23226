//! `reckon version`: of this program. A cluster's own version is `kubectl version`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::output::{self, Format};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon version
  reckon version -o json")]
pub struct Args {
    /// Print for programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let value =
        json!({ "version": version, "os": std::env::consts::OS, "arch": std::env::consts::ARCH });
    output::print(args.output, &value, || {
        format!(
            "reckon {version} {}/{}\n",
            std::env::consts::OS,
            std::env::consts::ARCH
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
