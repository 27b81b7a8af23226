//! Seeds that once found something, by what they found.

use simulations::{Options, run};

/// (what was wrong, seed, steps)
const FOUND: &[(&str, u64, u64)] = &[
    (
        "a server that had missed a joining said of the joined one, which was to be removed, that it was no member",
        46,
        600,
    ),
    (
        "a restore on a living cluster did not end: what it put back, a controller counted on",
        7,
        600,
    ),
];

#[test]
fn what_seeds_found_stays_mended() {
    for (what, seed, steps) in FOUND {
        let options = Options {
            steps: *steps,
            ..Options::new(*seed)
        };
        if let Err(failure) = run(&options) {
            panic!("{what}: {failure}");
        }
    }
}
