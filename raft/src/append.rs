//! Appending to the log, on the leader.

use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use seams::Peer;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::node::Node;
use crate::types::{Payload, Position, Types};

/// The largest entry.
pub const ENTRY_BYTES_MAX: usize = 9 << 20;
/// Appends that may be under way at once, and their bytes together.
pub const APPENDS_MAX: usize = 8_192;
pub const APPENDS_BYTES_MAX: usize = 128 << 20;

/// A leader takes entries only while a majority has heard of it lately. One just elected, or that a busy machine has held
/// up, is there in a moment, so an append waits this long for it.
const CONFIRMED_DEADLINE: Duration = Duration::from_secs(1);
const CONFIRMED_RETRY: Duration = Duration::from_millis(5);

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

/// Why one try has no position.
enum Refused {
    /// Nothing was appended: this leader waits to be confirmed by a majority.
    Unconfirmed,
    For(AppendError),
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self::For(error)
    }
}

/// What is under way.
pub(crate) struct Limits {
    count: Semaphore,
    bytes: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            count: Semaphore::new(APPENDS_MAX),
            bytes: Semaphore::new(APPENDS_BYTES_MAX),
        }
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
        let _bytes = limits
            .bytes
            .try_acquire_many(bytes as u32)
            .map_err(|_| AppendError::Full)?;

        let until = Instant::now() + CONFIRMED_DEADLINE;
        loop {
            match self.try_append(payload.clone(), term).await {
                Err(Refused::Unconfirmed) if Instant::now() < until => {
                    tokio::time::sleep(CONFIRMED_RETRY).await
                }
                Err(Refused::Unconfirmed) => return Err(AppendError::NotLeader { leader: None }),
                Err(Refused::For(error)) => return Err(error),
                Ok(position) => return Ok(position),
            }
        }
    }

    async fn try_append(&self, payload: Bytes, term: Option<u64>) -> Result<Position, Refused> {
        let (responder, done) = ProgressResponder::<Types, _>::complete_only();
        let mut write = self.raft().write(Payload(payload)).responder(responder);
        if let Some(term) = term {
            write = write.with_leader(term);
        }
        write.await.map_err(|_| AppendError::Stopped)?;
        match done.await {
            Ok(Ok(written)) => Ok(written.log_id.into()),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                Err(self.not_here(forward, term))
            }
            // Discarded under another leader, or lost with a node that fails.
            Ok(Err(_)) | Err(_) => Err(AppendError::Unknown.into()),
        }
    }

    fn not_here(&self, forward: ForwardToLeader<Types>, asked: Option<u64>) -> Refused {
        if forward.reason == ForwardReason::LeaseExpired {
            return Refused::Unconfirmed;
        }
        let term = self.raft().metrics().borrow_watched().current_term;
        let error = match asked {
            Some(asked) if asked != term => AppendError::TermMoved { asked, term },
            _ => AppendError::NotLeader {
                leader: forward
                    .leader_id
                    .zip(forward.leader_node)
                    .map(|(id, node)| node.peer(id)),
            },
        };
        error.into()
    }
}
