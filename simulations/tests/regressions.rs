//! Seeds that once found something, by what they found.
//!
//! What is drawn has changed since they did, so each cause has a test of its own besides: `directed/found.rs` has them or says where they are.

use simulations::{Options, run};

/// (what was wrong, seed, steps, the clients' pause as it was then)
const FOUND: &[(&str, u64, u64, (u64, u64))] = &[
    (
        "a server that had missed a joining said of the joined one, which was to be removed, that it was no member",
        46,
        600,
        (200, 2_000),
    ),
    (
        "a restore on a living cluster did not end: what it put back, a controller counted on",
        7,
        600,
        (200, 2_000),
    ),
    (
        "one that a lost leader had taken in, uncommitted, was taken for one that a recovery had left behind, and forgotten",
        43,
        600,
        (400, 5_000),
    ),
    (
        "a message of proposals that came a second time was read again: a counter stood above its increments",
        78,
        600,
        (400, 4_500),
    ),
    (
        "a server went on beside the others: raft had ended, or its log could not be written, and nobody was told",
        96,
        600,
        (400, 4_500),
    ),
];

#[test]
fn what_seeds_found_stays_mended() {
    for (what, seed, steps, pause_ms) in FOUND {
        let options = Options {
            steps: *steps,
            pause_ms: *pause_ms,
            ..Options::new(*seed)
        };
        if let Err(failure) = run(&options) {
            panic!("{what}: {failure}");
        }
    }
}
