//! What is counted of proposals, as plain numbers: the metrics show them.

use super::ProposeError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What came of the proposals that this server made for its callers.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    accepted: AtomicU64,
    rejected: AtomicU64,
    too_busy: AtomicU64,
    too_large: AtomicU64,
    no_room: AtomicU64,
    unavailable: AtomicU64,
    unknown: AtomicU64,
}

impl Outcomes {
    pub fn count<T>(&self, outcome: &Result<T, ProposeError>) {
        let counter = match outcome {
            Ok(_) => &self.accepted,
            Err(ProposeError::Rejected(_)) => &self.rejected,
            Err(ProposeError::TooBusy { .. }) => &self.too_busy,
            Err(ProposeError::TooLarge { .. }) => &self.too_large,
            Err(ProposeError::NoRoom(_)) => &self.no_room,
            Err(ProposeError::Unavailable(_)) => &self.unavailable,
            Err(ProposeError::Unknown(_)) => &self.unknown,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Each outcome's name and count.
    pub fn read(&self) -> [(&'static str, u64); 7] {
        [
            ("accepted", &self.accepted),
            ("rejected", &self.rejected),
            ("too_busy", &self.too_busy),
            ("too_large", &self.too_large),
            ("no_room", &self.no_room),
            ("unavailable", &self.unavailable),
            ("unknown", &self.unknown),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}
