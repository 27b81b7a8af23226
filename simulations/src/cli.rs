//! `reckon simulate`: one seed or many, told to a person.

use crate::FaultCounts;
use crate::planted::Planted;
use crate::run::{Failure, Options, Report, run};
use std::fmt::Write;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct SimulateArguments {
    pub seeds: std::ops::RangeInclusive<u64>,
    pub steps: u64,
    pub planted: Option<Planted>,
}

/// Runs the seeds one after another. `say` gets a line for each as it ends. The error is what broke, and how to see it again.
pub fn simulate(arguments: &SimulateArguments, mut say: impl FnMut(&str)) -> Result<(), String> {
    let mut total = FaultCounts::default();
    let mut seeds = 0;
    for seed in arguments.seeds.clone() {
        let options = Options {
            steps: arguments.steps,
            planted: arguments.planted,
            ..Options::new(seed)
        };
        match run(&options) {
            Ok(report) => {
                say(&line(&report));
                total.add(&report.faults);
                seeds += 1;
            }
            Err(failure) => {
                say(&format!(
                    "{failure}; looking for a shorter run that shows it"
                ));
                return Err(explain(&options, failure));
            }
        }
    }
    say(&format!("{seeds} seeds held; faults: {}", listed(&total)));
    Ok(())
}

fn line(report: &Report) -> String {
    format!(
        "seed {}: {} virtual s, {} writes ({} refused, {} unknown), {} leaders, revision {}, digest {}; {}",
        report.seed,
        report.virtual_s,
        report.writes,
        report.refused,
        report.unknown,
        report.terms,
        report.revision,
        report.digest,
        listed(&report.faults)
    )
}

fn listed(faults: &FaultCounts) -> String {
    faults
        .rows()
        .iter()
        .fold(String::new(), |mut text, (kind, count)| {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing into a String does not fail.
            let _ = write!(text, "{comma}{count} {kind}");
            text
        })
}

/// Looks for a shorter run that shows the failure, by halving: the same seed goes the same way up to its end.
fn explain(options: &Options, failure: Failure) -> String {
    let mut shortest = failure;
    let (mut low, mut high) = (0, shortest.step);
    while low + 1 < high {
        let steps = (low + high) / 2;
        match run(&Options {
            steps,
            ..options.clone()
        }) {
            Err(failure) => {
                high = failure.step.min(steps);
                shortest = failure;
            }
            Ok(_) => low = steps,
        }
    }
    format!(
        "{shortest}\nto see it again: reckon simulate --seed {} --steps {high}",
        shortest.seed
    )
}
