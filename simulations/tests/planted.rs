//! Each planted bug is caught, by the check that is there for it, within a few seeds.

use simulations::{Options, Planted, run};

/// Seeds that a bug may stay hidden from.
const SEEDS_MAX: u64 = 12;

fn check(planted: Planted, caught_by: &[&str]) {
    for seed in 1..=SEEDS_MAX {
        let Err(failure) = run(&Options {
            planted: Some(planted),
            ..Options::new(seed)
        }) else {
            continue;
        };
        println!("{planted:?}: {failure}");
        assert!(
            caught_by.contains(&failure.violation.invariant),
            "{planted:?} was caught by another check: {failure}"
        );
        return;
    }
    panic!("{planted:?} was not caught over {SEEDS_MAX} seeds");
}

#[test]
fn a_skipped_sync_is_caught() {
    check(
        Planted::SkippedSync,
        &[
            "no acknowledged write lost",
            "one leader a term",
            "equal digests",
            "start",
            "convergence",
        ],
    );
}

#[test]
fn an_unchecked_expectation_is_caught() {
    check(
        Planted::UncheckedExpectation,
        &["no acknowledged write lost", "bound once", "capacity"],
    );
}

#[test]
fn an_unfenced_session_is_caught() {
    check(Planted::UnfencedSession, &["fenced sessions"]);
}

#[test]
fn a_forgotten_outcome_is_caught() {
    check(Planted::ForgottenOutcome, &["done once"]);
}

#[test]
fn a_wall_clock_in_apply_is_caught() {
    check(Planted::WallClock, &["equal digests"]);
}
