//! The wall clock, and nothing else of time.
//!
//! Wall time is read by the leader to steer the log's clock, and to stamp logs for people. It jumps, it goes back, and
//! servers disagree about it; nothing may measure a duration with it. Durations and sleeps are tokio's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time, as the machine believes it.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z. May jump either way between two calls.
    fn wall_ms(&self) -> u64;
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        // A clock before 1970 is a machine that has not been told the time yet: zero is as good an answer as any.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}
