//! Randomness: election timeouts and ids.
//!
//! A simulation must draw the same numbers from the same seed, so nothing above may ask the operating system itself.

use rand::RngCore;

/// A source of random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// One random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The thread's own generator (ChaCha, seeded by the operating system's): ids and salts are drawn for every proposal, and a system call
/// for each would cost about what folding it does.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
