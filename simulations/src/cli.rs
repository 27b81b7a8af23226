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
    let (mut seeds, mut virtual_s, mut writes) = (0, 0, 0);
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
                virtual_s += report.virtual_s;
                writes += report.writes;
            }
            Err(failure) => {
                say(&format!(
                    "{failure}; looking for a shorter run that shows it"
                ));
                return Err(explain(&options, failure));
            }
        }
    }
    say(&format!(
        "{seeds} seeds held: {:.1} virtual hours, {writes} writes; faults: {}",
        virtual_s as f64 / 3_600.0,
        listed(&total)
    ));
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
    let planted = options.planted;
    let planted = planted.map_or_else(String::new, |planted| format!(" --planted {planted:?}"));
    format!(
        "{shortest}\nto see it again: reckon simulate --seed {} --steps {high}{planted}",
        shortest.seed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated(steps: u64, planted: Option<Planted>) -> (Result<(), String>, Vec<String>) {
        let arguments = SimulateArguments {
            seeds: 1..=2,
            steps,
            planted,
        };
        let mut said = Vec::new();
        let result = simulate(&arguments, |line| said.push(line.to_owned()));
        (result, said)
    }

    #[test]
    fn says_what_each_seed_was_and_all_together() {
        let (result, said) = simulated(20, None);
        result.unwrap();
        let [first, second, all] = &said[..] else {
            panic!("{said:#?}")
        };
        for (line, seed) in [(first, 1), (second, 2)] {
            assert!(line.starts_with(&format!("seed {seed}: ")), "{line}");
            assert!(
                line.contains(" virtual s, ") && line.contains(" digest "),
                "{line}"
            );
        }
        assert!(
            all.starts_with("2 seeds held: 0.0 virtual hours, "),
            "{all}"
        );
        for (kind, _) in FaultCounts::default().rows() {
            assert!(all.contains(kind), "{kind} is not in {all}");
        }
    }

    #[test]
    fn a_seed_that_fails_is_the_last_and_says_how_to_see_it_again() {
        let (result, said) = simulated(40, Some(Planted::SkippedRevision));
        let why = result.unwrap_err();
        let again = "to see it again: reckon simulate --seed 1 --steps 1 --planted SkippedRevision";
        assert!(why.starts_with("seed 1, step 1: time goes on: "), "{why}");
        assert!(why.ends_with(again), "{why}");
        assert_eq!(said.len(), 1, "{said:#?}");
    }
}
