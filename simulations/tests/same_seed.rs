//! The same seed twice gives the same history, bit for bit, and another seed another one.

use simulations::{Options, run};

#[test]
fn the_same_seed_gives_the_same_digest() {
    for seed in [7, 8] {
        let options = Options {
            steps: 120,
            ..Options::new(seed)
        };
        let (first, second) = (run(&options).unwrap(), run(&options).unwrap());
        assert_eq!(first, second);
    }
    let (one, other) = (
        Options {
            steps: 30,
            ..Options::new(1)
        },
        Options {
            steps: 30,
            ..Options::new(2)
        },
    );
    assert_ne!(run(&one).unwrap().digest, run(&other).unwrap().digest);
}
