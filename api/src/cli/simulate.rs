//! `reckon simulate`: its flags. The simulation itself is the crate `simulations`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use simulations::{Options, SimulateArguments, simulate};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon simulate --seed 7
  reckon simulate --seed 7 --steps 2000
  reckon simulate --seeds 1..50

The same seed gives the same final digest.")]
pub struct Args {
    /// What the whole run is drawn from
    #[arg(long, value_name = "S", default_value_t = 1, conflicts_with = "seeds")]
    seed: u64,
    /// How many steps, each a second of virtual time
    #[arg(long, value_name = "N", default_value_t = Options::STEPS)]
    steps: u64,
    /// A run for each of these, both ends included
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<(u64, u64)>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (first, last) = args.seeds.unwrap_or((args.seed, args.seed));
    let arguments = SimulateArguments {
        seeds: first..=last,
        steps: args.steps,
        planted: None,
    };
    match simulate(&arguments, |line| println!("{line}")) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => bail!(failure),
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let ends = text
        .split_once("..")
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    ends.filter(|(first, last)| first <= last)
        .ok_or_else(|| format!("'{text}' is no range of seeds: give A..B"))
}
