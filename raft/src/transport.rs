//! openraft's messages over [`seams::Network`]: the sending side.
//!
//! Each message carries who sends it, and the answer who answers; either end refuses a server that is not the one it was.
//! Appends carry the leader's clock down, and their answers the members' wall clocks up. Entries are sent one message
//! after another to a follower, each with all that has come meanwhile, bounded in bytes by the log store. A snapshot goes
//! in calls of one chunk each, so that none is large and each can fail by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use seams::{Entropy, Network, NetworkError, Peer, RefusalCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::codec::{self, FlatVote};
use crate::commits::{Awaited, paced};
use crate::identity::{Acquaintances, Identity};
use crate::snapshot::{Chunk, FlatMeta, Snapshot, Snapshots, digest};
use crate::timekeeper::Timekeeper;
use crate::types::{Address, LogId, NodeId, Position, Types, Vote};

pub(crate) const APPEND: &str = "raft.append";
pub(crate) const VOTE: &str = "raft.vote";
pub(crate) const PRE_VOTE: &str = "raft.pre-vote";
pub(crate) const TRANSFER: &str = "raft.transfer";
pub(crate) const READ: &str = "raft.read";
/// The same, with the vote of the member that asks.
pub(crate) const READ_BY: &str = "raft.read-by";
pub(crate) const SNAPSHOT_BEGIN: &str = "raft.snapshot-begin";
pub(crate) const SNAPSHOT_CHUNK: &str = "raft.snapshot-chunk";
pub(crate) const SNAPSHOT_END: &str = "raft.snapshot-end";

/// For an append without entries. openraft gives up a heartbeat sooner by itself.
const EMPTY_APPEND_DEADLINE: Duration = Duration::from_secs(1);
/// For entries, which the follower syncs before it answers.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// The follower syncs what it has and opens the database.
const INSTALL_DEADLINE: Duration = Duration::from_secs(120);

/// A message between servers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message<T> {
    pub(crate) from: Identity,
    pub(crate) body: T,
}

/// The entries come behind it, each as [`codec::encode_entry`] makes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    /// The leader's clock, once it has one.
    pub(crate) clock_ms: Option<u64>,
    /// Which disks the leader knows.
    pub(crate) known: Vec<(NodeId, u64)>,
    pub(crate) vote: FlatVote,
    pub(crate) previous: Option<Position>,
    pub(crate) committed: Option<Position>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub(crate) wall_ms: u64,
    pub(crate) outcome: AppendOutcome,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AppendOutcome {
    Success,
    Partial(Option<Position>),
    Conflict,
    HigherVote(FlatVote),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AskVote {
    pub(crate) vote: FlatVote,
    pub(crate) last: Option<Position>,
    pub(crate) transfer: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Voted {
    pub(crate) vote: FlatVote,
    pub(crate) granted: bool,
    pub(crate) last: Option<Position>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) vote: FlatVote,
    pub(crate) to: NodeId,
    pub(crate) last: Option<Position>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Transferred {
    Accepted,
    VoteChanged {
        expected: FlatVote,
        actual: FlatVote,
    },
    NotFlushed {
        expected: Option<Position>,
        actual: Option<Position>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotBegin {
    pub(crate) transfer: u64,
    pub(crate) vote: FlatVote,
    pub(crate) meta: FlatMeta,
    /// Name and length.
    pub(crate) files: Vec<(String, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotEnd {
    pub(crate) transfer: u64,
    pub(crate) vote: FlatVote,
}

/// What all connections of this server share.
pub(crate) struct Wires {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) acquaintances: Acquaintances,
    pub(crate) time: Timekeeper,
    pub(crate) snapshots: Snapshots,
    /// Why another server will have nothing to do with this one, once one has said so.
    pub(crate) refused: watch::Sender<Option<String>>,
    /// This server leads no more ([`crate::Node::stand_aside`]).
    pub(crate) aside: AtomicBool,
    /// Reads of snapshot files.
    pub(crate) files: Box<dyn seams::Worker>,
    /// Of each follower, by its name, whether somebody there waits for a commit.
    pub(crate) awaited: Mutex<BTreeMap<String, Arc<Awaited>>>,
}

impl Wires {
    /// Asks a peer, in our own envelope.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        to: &Peer,
        method: &'static str,
        body: Q,
        deadline: Duration,
    ) -> Result<A, NetworkError> {
        let message = codec::encode(&self.sealed(body));
        self.ask_sealed(to, method, message, deadline).await
    }

    /// Who waits for a commit on this follower. Others than this leader's followers have nothing to wait for.
    pub(crate) fn awaited_on(&self, follower: &str) -> Option<Arc<Awaited>> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.get(follower).cloned()
    }

    fn follow(&self, follower: &Peer) -> Arc<Awaited> {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.entry(follower.name.clone()).or_default().clone()
    }

    /// This server is none of the cluster's any more. What was said first stays: others say the same in their words, again and again.
    pub(crate) fn is_refused(&self, reason: String) {
        self.refused.send_if_modified(|refused| {
            let first = refused.is_none();
            refused.get_or_insert(reason);
            first
        });
    }

    fn sealed<T>(&self, body: T) -> Message<T> {
        Message {
            from: self.acquaintances.me().clone(),
            body,
        }
    }

    async fn ask_sealed<A: DeserializeOwned>(
        &self,
        to: &Peer,
        method: &'static str,
        message: Bytes,
        deadline: Duration,
    ) -> Result<A, NetworkError> {
        let answer = self.network.call(to, method, message, deadline).await;
        if let Err(NetworkError::Refused {
            peer,
            code: RefusalCode::Forbidden,
            message,
        }) = &answer
        {
            self.is_refused(format!("{peer} refuses this server: {message}"));
        }
        let answer = answer?;
        let wrong = |reason: String| NetworkError::Unreachable {
            peer: to.to_string(),
            reason,
        };
        let answer: Message<A> =
            codec::decode(&answer).map_err(|error| wrong(error.to_string()))?;
        self.acquaintances.check(&answer.from).map_err(wrong)?;
        Ok(answer.body)
    }
}

/// Makes the connections that openraft asks for.
pub(crate) struct Links {
    pub(crate) wires: Arc<Wires>,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &Address) -> Link {
        Link {
            wires: self.wires.clone(),
            to: node.peer(target),
        }
    }
}

/// The way to one server.
pub(crate) struct Link {
    wires: Arc<Wires>,
    to: Peer,
}

impl Link {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: &'static str,
        body: Q,
        deadline: Duration,
    ) -> Result<A, Unreachable<Types>> {
        let message = codec::encode(&self.wires.sealed(body));
        self.ask_sealed(method, message, deadline).await
    }

    async fn ask_sealed<A: DeserializeOwned>(
        &self,
        method: &'static str,
        message: Bytes,
        deadline: Duration,
    ) -> Result<A, Unreachable<Types>> {
        // Every failure counts as unreachable, also a refusal or a timeout: openraft then waits before it tries again.
        self.wires
            .ask_sealed(&self.to, method, message, deadline)
            .await
            .map_err(|error| {
                tracing::debug!(%error, method, "no answer");
                Unreachable::new(&error)
            })
    }

    async fn ask_vote(
        &self,
        method: &'static str,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = AskVote {
            vote: (&rpc.vote).into(),
            last: rpc.last_log_id.map(Position::from),
            transfer: rpc.leadership_transfer,
        };
        let voted: Voted = self.ask(method, body, option.hard_ttl()).await?;
        Ok(VoteResponse::new(
            Vote::from(voted.vote),
            voted.last.map(LogId::from),
            voted.granted,
        ))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Snapshot>,
    ) -> Result<Vote, StreamingError<Types>> {
        let transfer = self.wires.entropy.next_u64();
        let files = {
            let (snapshots, data) = (self.wires.snapshots.clone(), snapshot.snapshot.clone());
            self.read(move || snapshots.files(&data)).await?
        };
        let begin = SnapshotBegin {
            transfer,
            vote: (&vote).into(),
            meta: (&snapshot.meta).into(),
            files: files
                .iter()
                .map(|file| (file.name.clone(), file.len))
                .collect(),
        };
        let seen: FlatVote = self.ask(SNAPSHOT_BEGIN, begin, CHUNK_DEADLINE).await?;
        let seen = Vote::from(seen);
        if seen > vote {
            return Ok(seen);
        }
        // Not sooner: from here on it is really sent.
        let (snapshots, data) = (self.wires.snapshots.clone(), snapshot.snapshot.clone());
        self.read(move || snapshots.verify(&data)).await?;
        for file in files {
            let mut offset = 0;
            loop {
                let (snapshots, data, name) = (
                    self.wires.snapshots.clone(),
                    snapshot.snapshot.clone(),
                    file.name.clone(),
                );
                let content = self
                    .read(move || snapshots.read(&data, &name, offset))
                    .await?;
                let len = content.len() as u64;
                let chunk = Chunk {
                    transfer,
                    file: file.name.clone(),
                    offset,
                    sha256: digest(&content),
                    content,
                };
                let (): () = self.ask(SNAPSHOT_CHUNK, chunk, CHUNK_DEADLINE).await?;
                offset += len;
                if offset >= file.len || len == 0 {
                    break;
                }
            }
        }
        let end = SnapshotEnd {
            transfer,
            vote: (&vote).into(),
        };
        let seen: FlatVote = self.ask(SNAPSHOT_END, end, INSTALL_DEADLINE).await?;
        Ok(seen.into())
    }

    /// Something that blocks on files. One that is gone was replaced by a newer snapshot: to be tried again with that.
    async fn read<T, F>(&self, work: F) -> Result<T, Unreachable<Types>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, seams::DiskError> + Send + 'static,
    {
        match seams::run(&*self.wires.files, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Unreachable::from_string(error)),
            Err(error) => Err(Unreachable::from_string(error)),
        }
    }
}

/// To the appends of one stream, in order.
type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let deadline = if rpc.entries.is_empty() {
            EMPTY_APPEND_DEADLINE
        } else {
            APPEND_DEADLINE
        };
        let body = Append {
            clock_ms: self.wires.time.leader_ms(),
            known: self.wires.acquaintances.known(),
            vote: (&rpc.vote).into(),
            previous: rpc.prev_log_id.map(Position::from),
            committed: rpc.leader_commit.map(Position::from),
        };
        let message = codec::encode_with_entries(&self.wires.sealed(body), &rpc.entries);
        let appended: Appended = self.ask_sealed(APPEND, message, deadline).await?;
        self.wires.time.answered(self.to.id, appended.wall_ms);
        Ok(match appended.outcome {
            AppendOutcome::Success => AppendEntriesResponse::Success,
            AppendOutcome::Partial(upto) => {
                AppendEntriesResponse::PartialSuccess(upto.map(LogId::from))
            }
            AppendOutcome::Conflict => AppendEntriesResponse::Conflict,
            AppendOutcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let awaited = self.wires.follow(&self.to);
        stream_append_sequential(self, paced(input, awaited), option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(VOTE, rpc, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(PRE_VOTE, rpc, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = std::pin::pin!(self.send_snapshot(vote, snapshot));
        let cancel = std::pin::pin!(cancel);
        match futures::future::select(cancel, sent).await {
            futures::future::Either::Left((closed, _)) => Err(closed.into()),
            futures::future::Either::Right((vote, _)) => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = Transfer {
            vote: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Position::from),
        };
        // The target waits for its log to be flushed, as long as this at most.
        let deadline = option.hard_ttl().max(EMPTY_APPEND_DEADLINE);
        let transferred: Transferred = self.ask(TRANSFER, body, deadline).await?;
        Ok(match transferred {
            Transferred::Accepted => Ok(()),
            Transferred::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                })
            }
            Transferred::NotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: expected.map(LogId::from),
                    actual: actual.map(LogId::from),
                })
            }
        })
    }
}
