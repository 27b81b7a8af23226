//! Spreads waits, so that the agents of a lost server do not all dial the next one at once. Seeded by the caller: the same seed
//! gives the same waits, which the simulation relies on. Never a source of secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, good enough to spread waits.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    /// A jitter of its own for `name`, from the same seed.
    pub fn of(seed: u64, name: &str) -> Self {
        let mixed = name
            .bytes()
            .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        Jitter(mixed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..bound. The bias of the modulus does not matter for waits.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Between half of `wait` and the whole of it.
    pub fn spread(&mut self, wait: Duration) -> Duration {
        let half = wait / 2;
        half + Duration::from_nanos(self.below(half.as_nanos().min(u128::from(u64::MAX)) as u64))
    }
}
