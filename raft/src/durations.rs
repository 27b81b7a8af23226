//! How long something took, counted: a histogram as plain numbers, for whoever shows metrics.
//!
//! What measures must not depend on how it is shown, and a count must cost nothing where it is taken, which is within a disk's write
//! or a lock: an atomic addition or two. Durations are shown to people; nothing may ever be decided by them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

/// The buckets' upper bounds: a sync of a good disk takes a tenth of a millisecond, one that takes seconds is ill.
const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// A histogram that any thread adds to.
#[derive(Debug, Default)]
pub struct Durations {
    /// The last is for what is above every bound.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// For each bucket, its upper bound in seconds (the last has none: infinity) and how many fell into it alone.
    pub buckets: Vec<(f64, u64)>,
    pub sum_s: f64,
    pub count: u64,
}

impl Durations {
    /// It took from then until now.
    pub fn since(&self, started: Instant) {
        let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    pub fn counted(&self) -> Counted {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Counted {
            count: buckets.iter().map(|(_, count)| count).sum(),
            sum_s: self.sum_us.load(Relaxed) as f64 / 1e6,
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_falls_into_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for us in [0, 100, 101, 5_000_000, 60_000_000] {
            let started = Instant::now();
            tokio::time::advance(Duration::from_micros(us)).await;
            durations.since(started);
        }
        let counted = durations.counted();
        let filled: Vec<_> = counted.buckets.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            filled,
            [&(0.0001, 2), &(0.000_25, 1), &(5.0, 1), &(f64::INFINITY, 1)]
        );
        assert_eq!((counted.count, counted.sum_s), (5, 65.000_201));
    }
}
