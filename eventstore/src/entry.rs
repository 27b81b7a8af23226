//! What one Raft log entry carries, and where it stands.

use crate::codec::encode_list;
use crate::{Proposal, Time};
use serde::{Deserialize, Serialize};

/// An entry's place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// The log's clock and a list of proposals, each atomic by itself. At most 9 MiB or 1,000 proposals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's reading of the log's clock when it made the entry. Apply never lets it go back.
    pub clock: Time,
    pub proposals: Vec<Proposal>,
}

impl Entry {
    pub const MOST_BYTES: usize = 9 * 1024 * 1024;
    pub const MOST_PROPOSALS: usize = 1_000;
}

impl Entry {
    /// The bytes of an entry, made of those of its proposals as `encode` made them: the leader has them from whoever proposed, and has
    /// read them to check them, so it need not write them again.
    pub fn join<P: AsRef<[u8]>>(clock: Time, proposals: &[P]) -> Vec<u8> {
        encode_list(&clock, proposals)
    }
}
