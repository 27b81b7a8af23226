//! A cluster grows from one server to three, to five, and back to one, while clients write and faults strike; nothing is lost.
//!
//! `a_hundred_seeds_hold` does the same between three and five with every other kind of fault.

use simulations::{Options, run};

const SEEDS: std::ops::Range<u64> = 1..4;
/// Virtual seconds: enough to go up and down.
const STEPS: u64 = 900;

#[test]
fn one_to_three_to_five_and_back_lose_nothing() {
    let (mut added, mut removed, mut moved) = (0, 0, 0);
    for seed in SEEDS {
        let options = Options {
            servers: 1,
            steps: STEPS,
            sizes: Some((1, 5)),
            ..Options::new(seed)
        };
        let report = run(&options).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{report:?}");
        assert!(report.writes > 0, "{report:?}");
        added += report.faults.members_added;
        removed += report.faults.members_removed;
        moved += report.faults.leader_transfers;
    }
    let seeds = SEEDS.end - SEEDS.start;
    assert!(
        added >= 4 * seeds && removed >= 4 * seeds && moved > 0,
        "{added} added, {removed} removed, {moved} moved"
    );
}
