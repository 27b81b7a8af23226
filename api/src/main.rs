//! The one binary. It reads the command line and hands over to the command's own file under `cli/`.
//!
//! Nothing is decided here: what `reckon up` starts is this same binary again, as `reckon server` and `reckon agent`.

mod cli;
mod files;
mod up;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // One crypto provider for all of TLS; a second call would fail, and there is none.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
