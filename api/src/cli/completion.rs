//! `reckon completion`: a script that a shell reads.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source <(reckon completion bash)
  reckon completion zsh > \"${fpath[1]}/_reckon\"
  reckon completion fish > ~/.config/fish/completions/reckon.fish")]
pub struct Args {
    shell: Supported,
}

#[derive(Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "reckon", &mut script);
    super::output::write(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
