//! Chance from a seed. Every part of a run draws from a stream of its own, so that one more draw here does not move the others.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use seams::Entropy;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone)]
pub struct Chance(Arc<Mutex<ChaCha8Rng>>);

impl Chance {
    /// Stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut source = ChaCha8Rng::seed_from_u64(seed);
        source.set_stream(stream);
        Self(Arc::new(Mutex::new(source)))
    }

    /// A number below `end`; `end` is not 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// From `low` up to and with `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `in_million` times out of a million.
    pub fn happens(&self, in_million: u64) -> bool {
        self.below(1_000_000) < in_million
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() {
            None
        } else {
            of.get(self.below(of.len() as u64) as usize)
        }
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(bytes);
    }
}
