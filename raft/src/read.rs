//! Linearizable reads by read index, one round for all that wait.
//!
//! A round asks a majority whether the leader still leads; its answer is good for every read that began before the round
//! did. So while one round is under way, those that come wait for the next, and share it. On a follower a round is one
//! question to the leader, which carries the follower's own vote: where the two are a majority, as of three servers they are,
//! the leader asks nobody else. If they are not, it does, in rounds of its own that are shared again. A reader gets an index up
//! to which this server has applied.
//!
//! Why the vote will do: a vote is durable here before anyone is told of it, and it is read after the reads of its round began.
//! So a later leader, which may have acknowledged more, could at that moment not have been elected by the follower; nor by
//! this leader, whose vote is looked at later still.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{RaftState, ReadPolicy};
use seams::{NetworkError, Peer, RefusalCode};
use tokio::sync::{oneshot, watch};

use crate::codec::FlatVote;
use crate::incoming::Raft;
use crate::log_store::LogStore;
use crate::transport::{READ, READ_BY, Wires};
use crate::types::{LogId, NodeId, Position, Types, Vote};

/// How long a read waits in all, for the round and for this server to apply.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long the leader is given for one round.
const ROUND_DEADLINE: Duration = Duration::from_secs(1);
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
    log: LogStore,
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
        log: LogStore,
        wires: Arc<Wires>,
        applied: watch::Receiver<Option<Position>>,
    ) -> Self {
        Self {
            id,
            raft,
            log,
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

    /// The read index, if this server leads; asked by a member whose vote this was after its reads began.
    pub(crate) async fn asked_by(&self, member: NodeId, vote: Vote) -> Result<u64, ReadError> {
        let leader = self.id;
        let committed = move |state: &RaftState<Types>| {
            let committed = state.cluster_committed().copied()?;
            let membership = state.membership_state.effective().membership();
            let two = BTreeSet::from([leader, member]);
            (leads(leader, state.vote_ref(), &vote, committed)
                && are_majority(&two, membership.get_joint_config()))
            .then_some(committed.index)
        };
        match self.raft.with_raft_state(committed).await {
            Ok(Some(index)) => Ok(index),
            Ok(None) => self.as_leader().await,
            Err(_) => Err(ReadError::Stopped),
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
            Some(leader) => self.ask(&leader).await,
            None => Err(ReadError::NoLeader("none is known".to_owned())),
        }
    }

    async fn ask(&self, leader: &Peer) -> Result<u64, ReadError> {
        let vote = self.log.vote().as_ref().map(FlatVote::from);
        let asked = match vote {
            Some(vote) => self.wires.ask(leader, READ_BY, vote, ROUND_DEADLINE).await,
            None => self.wires.ask(leader, READ, (), ROUND_DEADLINE).await,
        };
        let asked = match asked {
            // A leader of an earlier release.
            Err(NetworkError::Refused {
                code: RefusalCode::UnknownMethod,
                ..
            }) => self.wires.ask(leader, READ, (), ROUND_DEADLINE).await,
            asked => asked,
        };
        asked.map_err(|error| ReadError::NoLeader(error.to_string()))
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

/// Whether this server leads, as far as the two know who voted so, and knows how far the log is committed: once an entry of its own
/// term is.
fn leads(me: NodeId, mine: &Vote, others: &Vote, committed: LogId) -> bool {
    let leader = mine.leader_id();
    mine.is_committed()
        && leader.voted_for == me
        && leader == others.leader_id()
        && leader.term == committed.leader_id.term
}

/// Of each of the configurations, as a change of members asks for.
fn are_majority(members: &BTreeSet<NodeId>, configurations: &[BTreeSet<NodeId>]) -> bool {
    !configurations.is_empty()
        && configurations
            .iter()
            .all(|voters| 2 * voters.intersection(members).count() > voters.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_one_that_both_voted_for_and_that_committed_something() {
        let committed = |term| LogId::from(Position { term, index: 9 });
        let (mine, voted) = (Vote::new_committed(4, 1), Vote::new(4, 1));
        for (mine, others, term, expected) in [
            (mine, mine, 4, true),
            // It voted, and has not heard yet that a majority did.
            (mine, voted, 4, true),
            // Elected, and nothing of its own is committed yet.
            (mine, mine, 3, false),
            // It came back from a death as one that was elected.
            (voted, mine, 4, false),
            // The other has heard of a later leader, or voted for one.
            (mine, Vote::new(5, 3), 4, false),
            (mine, Vote::new_committed(5, 3), 4, false),
            // The other's leader is an earlier one.
            (mine, Vote::new_committed(3, 2), 4, false),
            // This one follows.
            (
                Vote::new_committed(4, 2),
                Vote::new_committed(4, 2),
                4,
                false,
            ),
            (Vote::new(5, 3), mine, 4, false),
        ] {
            assert_eq!(
                leads(1, &mine, &others, committed(term)),
                expected,
                "{mine} {others} {term}"
            );
        }
    }

    #[test]
    fn two_are_a_majority_of_three_in_each_configuration() {
        type Ids = &'static [u64];
        let rows: [(Ids, &[Ids], bool); 10] = [
            (&[1, 2], &[], false),
            (&[1, 2], &[&[1, 2, 3]], true),
            (&[1, 4], &[&[1, 2, 3]], false),
            (&[1], &[&[1]], true),
            (&[1], &[&[1, 2]], false),
            (&[1, 2], &[&[1, 2]], true),
            (&[1, 2], &[&[1, 2, 3, 4]], false),
            (&[1, 2], &[&[1, 2, 3], &[1, 2, 4]], true),
            (&[1, 2], &[&[1, 2, 3], &[1, 3, 4]], false),
            (&[1, 2, 3], &[&[1, 2, 3, 4, 5]], true),
        ];
        for (members, configurations, majority) in rows {
            let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
            let configurations: Vec<_> = configurations.iter().map(|ids| set(ids)).collect();
            assert_eq!(
                are_majority(&set(members), &configurations),
                majority,
                "{members:?} of {configurations:?}"
            );
        }
    }
}
