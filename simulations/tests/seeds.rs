//! A hundred seeds hold, each ten virtual minutes with hundreds of writes and several lost leaders; no kind of fault stays away from all of
//! them. `RECKON_SEEDS=from..to` runs others.

use simulations::{FaultCounts, Options, Report, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const SEEDS: std::ops::Range<u64> = 1..101;
const WRITES_MIN: u64 = 300;
const LEADER_LOSSES_MIN: u64 = 3;
const VIRTUAL_S_MIN: u64 = 600;

fn seeds() -> std::ops::Range<u64> {
    let named = std::env::var("RECKON_SEEDS").ok().and_then(|range| {
        let (from, to) = range.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    named.unwrap_or(SEEDS)
}

#[test]
fn a_hundred_seeds_hold() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let reports: Mutex<Vec<Report>> = Mutex::default();
    // They take every core for minutes: what runs beside them goes first.
    rustix::process::nice(15).unwrap();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    match run(&Options::new(seed)) {
                        Ok(report) => reports.lock().unwrap().push(report),
                        Err(failure) => {
                            // The others need not be run to know that it fails.
                            next.store(seeds.end, Ordering::Relaxed);
                            panic!("{failure}\nto see it again: reckon simulate --seed {seed} --steps {}", failure.step);
                        }
                    }
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports.len() as u64, seeds.end - seeds.start);
    let mut total = FaultCounts::default();
    for report in &reports {
        assert!(report.writes >= WRITES_MIN, "{report:?}");
        assert!(
            report.faults.leader_losses >= LEADER_LOSSES_MIN,
            "{report:?}"
        );
        assert!(report.virtual_s >= VIRTUAL_S_MIN, "{report:?}");
        total.add(&report.faults);
    }
    let (hours, writes) = (
        reports.iter().map(|report| report.virtual_s).sum::<u64>() as f64 / 3_600.0,
        reports.iter().map(|report| report.writes).sum::<u64>(),
    );
    println!(
        "{} seeds, {hours:.1} virtual hours, {writes} writes",
        reports.len()
    );
    for (kind, count) in total.rows() {
        println!("{count} {kind}");
        assert!(count > 0, "over all seeds there were no {kind}");
    }
}
