//! Appending to the log, on the leader.

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use seams::Peer;
use tokio::sync::Semaphore;

use crate::node::Node;
use crate::types::{Payload, Position, Types};

/// The largest entry.
pub const ENTRY_BYTES_MAX: usize = 9 << 20;
/// Appends that may be under way at once, and their bytes together.
pub const APPENDS_MAX: usize = 8_192;
pub const APPENDS_BYTES_MAX: usize = 128 << 20;

/// Why an append has no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was appended. Ask the leader, if one is known.
    #[error("this server does not lead; {}", match .leader { Some(leader) => format!("{leader} does"), None => "no leader is known".to_owned() })]
    NotLeader { leader: Option<Peer> },
    /// Nothing was appended: the term that was asked for is over.
    #[error("term {asked} is over; it is term {term} now")]
    TermMoved { asked: u64, term: u64 },
    /// Nothing was appended: too much is under way already.
    #[error("too many appends are under way")]
    Full,
    /// Nothing was appended.
    #[error("an entry of {bytes} bytes is above {ENTRY_BYTES_MAX}")]
    TooLarge { bytes: usize },
    /// Leadership was lost while it was under way: it may be committed yet, or never.
    #[error("leadership was lost while the entry was under way; its outcome is not known")]
    Unknown,
    #[error("this server is stopping")]
    Stopped,
}

/// What is under way.
pub(crate) struct Limits {
    count: Semaphore,
    bytes: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self { count: Semaphore::new(APPENDS_MAX), bytes: Semaphore::new(APPENDS_BYTES_MAX) }
    }
}

impl Node {
    /// Appends an entry, in this term only if one is named, and waits until it is committed and applied here.
    ///
    /// Many may be under way at once; those that come while the log is synced or replicated go together, so throughput
    /// grows with their number. A leader that is cut off from the majority waits until it is led by another
    /// ([`AppendError::Unknown`]) or heard again, so callers set a deadline of their own.
    pub async fn append(&self, payload: Bytes, term: Option<u64>) -> Result<Position, AppendError> {
        let bytes = payload.len();
        if bytes > ENTRY_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes });
        }
        let limits = &self.inner().appends;
        let _one = limits.count.try_acquire().map_err(|_| AppendError::Full)?;
        let _bytes = limits.bytes.try_acquire_many(bytes as u32).map_err(|_| AppendError::Full)?;

        let (responder, done) = ProgressResponder::<Types, _>::complete_only();
        let mut write = self.raft().write(Payload(payload)).responder(responder);
        if let Some(term) = term {
            write = write.with_leader(term);
        }
        write.await.map_err(|_| AppendError::Stopped)?;
        match done.await {
            Ok(Ok(written)) => Ok(written.log_id.into()),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                let status = self.status();
                Err(match term {
                    Some(asked) if asked != status.term => AppendError::TermMoved { asked, term: status.term },
                    _ => AppendError::NotLeader {
                        leader: forward.leader_id.zip(forward.leader_node).map(|(id, node)| node.peer(id)),
                    },
                })
            }
            // Discarded under another leader, or lost with a node that fails.
            Ok(Err(_)) | Err(_) => Err(AppendError::Unknown),
        }
    }
}
