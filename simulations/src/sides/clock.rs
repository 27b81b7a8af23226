//! Wall clocks: one a server, each off by an amount of its own that a fault may change at any time. Monotonic time is tokio's, paused.

use seams::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

/// Where all runs begin: 2026-01-01T00:00:00Z.
pub const EPOCH_MS: i64 = 1_767_225_600_000;

#[derive(Clone)]
pub struct SimClock {
    started: Instant,
    off_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// Must be called within the run's runtime.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            off_ms: Arc::default(),
        }
    }

    /// The clock jumps: from now on it is this far off.
    pub fn set_off(&self, ms: i64) {
        self.off_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        let elapsed = self.started.elapsed().as_millis() as i64;
        (EPOCH_MS + elapsed + self.off_ms.load(Ordering::Relaxed)).max(0) as u64
    }
}
