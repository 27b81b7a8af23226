//! `reckon simulate`: its flags. The simulation itself is the crate `simulations`.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Result, bail};
use simulations::{Options, Planted, SimulateArguments, simulate};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

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
    /// A bug planted on purpose, to see that it is caught
    #[arg(long, value_name = "BUG", value_parser = planted, hide = true)]
    planted: Option<Planted>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    log_in_virtual_time();
    let (first, last) = args.seeds.unwrap_or((args.seed, args.seed));
    let arguments = SimulateArguments {
        seeds: first..=last,
        steps: args.steps,
        planted: args.planted,
    };
    match simulate(&arguments, super::output::line) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => bail!(failure),
    }
}

/// With `RECKON_LOG`, what the servers and nodes say, at seconds of virtual time.
fn log_in_virtual_time() {
    let Ok(filter) = EnvFilter::try_from_env("RECKON_LOG") else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(VirtualTime(Instant::now()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Tokio's clock, which a simulation advances; of the first seed only, for each has a clock of its own.
struct VirtualTime(Instant);

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:9.3}", self.0.elapsed().as_secs_f64())
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let ends = text
        .split_once("..")
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    ends.filter(|(first, last)| first <= last)
        .ok_or_else(|| format!("'{text}' is no range of seeds: give A..B"))
}

fn planted(name: &str) -> Result<Planted, String> {
    Planted::named(name).ok_or_else(|| format!("'{name}' is none of {:?}", Planted::ALL))
}
