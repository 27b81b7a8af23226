//! What a server may set of its store, and the bounds of what it keeps in memory.

use crate::layout;
use eventstore::LEVEL;
use seams::DiskOptions;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub disk: DiskOptions,
    /// The highest level of the log that it applies: this program's own, but in tests of upgrades.
    pub most_level: u32,
    /// Recent events kept in memory for watches: at most so many, and at most so many bytes of objects and envelopes. A watch that
    /// falls behind them goes on from the disk.
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// Creations and deletions of a resource that never make a new key set worth while: so many are read quickly.
    pub few_births: u64,
    /// Changes whose keys' records of what lives are not written yet; a start reads their events.
    pub most_warm: usize,
    /// Outcomes kept in memory. Older ones are read from the disk for a proposal that was first sent so long ago.
    pub most_outcomes: usize,
    /// Callers that may wait at once for outcomes; as many again for revisions, and for indexes; and watches open at once.
    pub most_waiting: usize,
}

impl StoreConfig {
    /// Some seconds of writes under full load: what is asked for again was sent within them, mostly.
    pub const MOST_OUTCOMES: usize = 16_384;
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            disk: DiskOptions::without_wal().in_order(&layout::IN_ORDER),
            most_level: LEVEL,
            ring_events: 16_384,
            ring_bytes: 16 << 20,
            few_births: 256,
            most_warm: 16_384,
            most_outcomes: Self::MOST_OUTCOMES,
            most_waiting: 65_536,
        }
    }
}
