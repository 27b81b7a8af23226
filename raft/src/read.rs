//! Linearizable reads by read index, one round for all that wait.
//!
//! A round asks a majority whether the leader still leads; its answer is good for every read that began before the round
//! did. So while one round is under way, those that come wait for the next, and share it. On a follower a round is one
//! question to the leader, whose own rounds are shared again. A reader gets an index up to which this server has applied.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{oneshot, watch};

use crate::incoming::Raft;
use crate::transport::{READ, Wires};
use crate::types::{NodeId, Position};

/// How long a read waits in all, for the round and for this server to apply.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long the leader is given for one round.
const ROUND_DEADLINE: Duration = Duration::from_secs(2);
/// Reads that may wait at once.
const READS_MAX: usize = 100_000;

/// Why a read has no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no leader known, or it could not be reached or confirmed. Try again.
    #[error("no leader confirmed the read: {0}")]
    NoLeader(String),
    /// This server did not get there in time.
    #[error("this server did not apply entry {index} in time")]
    Behind { index: u64 },
    #[error("more than {READS_MAX} reads wait")]
    Full,
    #[error("this server is stopping")]
    Stopped,
}

/// The rounds of one server; clones are handles on the same.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    id: NodeId,
    raft: Raft,
    wires: Arc<Wires>,
    applied: watch::Receiver<Option<Position>>,
    /// Rounds as any server makes them, and rounds as the leader, which followers ask for.
    any: Arc<Mutex<Waiting>>,
    leader: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    running: bool,
    next: Vec<oneshot::Sender<Result<u64, ReadError>>>,
}

impl ReadIndex {
    pub(crate) fn new(
        id: NodeId,
        raft: Raft,
        wires: Arc<Wires>,
        applied: watch::Receiver<Option<Position>>,
    ) -> Self {
        Self {
            id,
            raft,
            wires,
            applied,
            any: Arc::default(),
            leader: Arc::default(),
        }
    }

    /// An index that covers all that was acknowledged before the call, and that is applied here.
    pub(crate) async fn read(&self) -> Result<u64, ReadError> {
        let mut index = None;
        let whole = async {
            let confirmed = self.wait(&self.any, false).await?;
            index = Some(confirmed);
            let mut applied = self.applied.clone();
            let reached = applied
                .wait_for(|at| at.is_some_and(|at| at.index >= confirmed))
                .await;
            reached.map(|_| confirmed).map_err(|_| ReadError::Stopped)
        };
        match tokio::time::timeout(READ_DEADLINE, whole).await {
            Ok(result) => result,
            Err(_) => Err(match index {
                Some(index) => ReadError::Behind { index },
                None => ReadError::NoLeader("no answer in time".to_owned()),
            }),
        }
    }

    /// The read index, if this server leads.
    pub(crate) async fn as_leader(&self) -> Result<u64, ReadError> {
        self.wait(&self.leader, true).await
    }

    async fn wait(&self, waiting: &Arc<Mutex<Waiting>>, as_leader: bool) -> Result<u64, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.next.len() >= READS_MAX {
                return Err(ReadError::Full);
            }
            waiting.next.push(sender);
            !std::mem::replace(&mut waiting.running, true)
        };
        if start {
            // A task of its own, so that no reader that goes away takes the others' round with it.
            tokio::spawn(self.clone().rounds(waiting.clone(), as_leader));
        }
        receiver.await.map_err(|_| ReadError::Stopped)?
    }

    /// Round after round, until nobody waits.
    async fn rounds(self, waiting: Arc<Mutex<Waiting>>, as_leader: bool) {
        loop {
            let readers = {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.next.is_empty() {
                    waiting.running = false;
                    return;
                }
                std::mem::take(&mut waiting.next)
            };
            let result = self.round(as_leader).await;
            for reader in readers {
                // It may have given up.
                let _ = reader.send(result.clone());
            }
        }
    }

    async fn round(&self, as_leader: bool) -> Result<u64, ReadError> {
        let leader = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader;
            leader.and_then(|id| {
                metrics
                    .membership_config
                    .get_node(&id)
                    .map(|node| node.peer(id))
            })
        };
        match leader {
            Some(leader) if as_leader || leader.id == self.id => self.confirm().await,
            None if as_leader => self.confirm().await,
            Some(leader) => {
                let asked = self.wires.ask(&leader, READ, (), ROUND_DEADLINE).await;
                asked.map_err(|error| ReadError::NoLeader(error.to_string()))
            }
            None => Err(ReadError::NoLeader("none is known".to_owned())),
        }
    }

    async fn confirm(&self) -> Result<u64, ReadError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ReadError::NoLeader("this server does not lead".to_owned()))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum))) => {
                let voters = self
                    .raft
                    .metrics()
                    .borrow_watched()
                    .membership_config
                    .membership()
                    .voter_ids()
                    .count();
                Err(ReadError::NoLeader(format!(
                    "{} of {voters} servers answered, which is no majority",
                    quorum.got.len()
                )))
            }
        }
    }
}
