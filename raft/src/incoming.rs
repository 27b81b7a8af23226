//! What other servers ask of this one: the receiving side, for raft's own messages and for those of the layers above.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::errors::RaftError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};
use openraft::type_config::alias::SnapshotOf;
use seams::{ByteStream, Handler, PeerIdentity, Refusal, RefusalCode, Worker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, FlatVote};
use crate::machine::Applier;
use crate::read::ReadIndex;
use crate::snapshot::{Chunk, Snapshot};
use crate::transport::{
    APPEND, Append, AppendOutcome, Appended, AskVote, Message, PRE_VOTE, READ, READ_BY,
    SNAPSHOT_BEGIN, SNAPSHOT_CHUNK, SNAPSHOT_END, SnapshotBegin, SnapshotEnd, TRANSFER, Transfer,
    Transferred, VOTE, Voted, Wires,
};
use crate::types::{Entry, LogId, NodeId, Position, Types, Vote};

pub(crate) type Raft = openraft::Raft<Types, Applier>;

/// Methods of upper layers, by name.
pub(crate) type Handlers = Arc<RwLock<BTreeMap<String, Arc<dyn Handler>>>>;

pub(crate) struct Incoming {
    pub(crate) raft: Raft,
    pub(crate) wires: Arc<Wires>,
    pub(crate) reads: ReadIndex,
    pub(crate) handlers: Handlers,
    /// Writes of snapshot files.
    pub(crate) files: Box<dyn Worker>,
}

/// What the network is given: the way to [`Incoming`] until the node ends, and then nowhere. It is never taken back from the
/// network, for there the next node under this name may have put its own already.
pub(crate) struct Door(RwLock<Option<Arc<Incoming>>>);

impl Door {
    pub(crate) fn to(incoming: Incoming) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Some(Arc::new(incoming)))))
    }

    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn open(&self) -> Result<Arc<Incoming>, Refusal> {
        let incoming = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        incoming.ok_or_else(|| Refusal::new(RefusalCode::Unavailable, "this server has stopped"))
    }
}

#[async_trait]
impl Handler for Door {
    async fn call(&self, from: &PeerIdentity, method: &str, body: Bytes) -> Result<Bytes, Refusal> {
        self.open()?.call(from, method, body).await
    }

    async fn stream(
        &self,
        from: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<ByteStream, Refusal> {
        self.open()?.stream(from, method, body).await
    }
}

#[async_trait]
impl Handler for Incoming {
    async fn call(&self, from: &PeerIdentity, method: &str, body: Bytes) -> Result<Bytes, Refusal> {
        match method {
            APPEND => {
                let (message, entries) =
                    codec::decode_with_entries::<Message<Append>>(&body).map_err(invalid)?;
                self.append(self.checked(message)?.1, entries).await
            }
            VOTE | PRE_VOTE => {
                let (from, ask) = self.open_from(&body)?;
                self.not_removed(from, &ask)?;
                self.vote(ask, method == PRE_VOTE).await
            }
            TRANSFER => {
                let transfer = self.open(&body)?;
                self.transfer(transfer).await
            }
            READ => {
                let (): () = self.open(&body)?;
                let index = self.reads.as_leader().await.map_err(unavailable)?;
                self.read_by(from);
                Ok(self.seal(index))
            }
            READ_BY => {
                let (member, vote) = self.open_from::<FlatVote>(&body)?;
                let index = self.reads.asked_by(member, vote.into()).await;
                let index = index.map_err(unavailable)?;
                self.read_by(from);
                Ok(self.seal(index))
            }
            SNAPSHOT_BEGIN => {
                let begin = self.open(&body)?;
                self.snapshot_begin(begin)
            }
            SNAPSHOT_CHUNK => {
                let chunk = self.open(&body)?;
                self.snapshot_chunk(chunk).await
            }
            SNAPSHOT_END => {
                let end = self.open(&body)?;
                self.snapshot_end(end).await
            }
            _ => self.upper(method)?.call(from, method, body).await,
        }
    }

    async fn stream(
        &self,
        from: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<ByteStream, Refusal> {
        self.upper(method)?.stream(from, method, body).await
    }
}

impl Incoming {
    /// Reads a message, if it is from the server it was.
    fn open<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Refusal> {
        self.open_from(body).map(|(_, message)| message)
    }

    /// The same, with who sent it.
    fn open_from<T: DeserializeOwned>(&self, body: &[u8]) -> Result<(NodeId, T), Refusal> {
        self.checked(codec::decode(body).map_err(invalid)?)
    }

    fn checked<T>(&self, message: Message<T>) -> Result<(NodeId, T), Refusal> {
        self.wires
            .acquaintances
            .check(&message.from)
            .map_err(|reason| Refusal::new(RefusalCode::Forbidden, reason))?;
        Ok((message.from.id, message.body))
    }

    /// Tells a server that was removed while it could not hear of it: a leader that has applied an entry of its term knows every
    /// member of that term. Who asks in a later one may have been added since by a leader that this one has not heard of.
    fn not_removed(&self, from: NodeId, ask: &AskVote) -> Result<(), Refusal> {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let established = metrics.state == openraft::ServerState::Leader
            && metrics
                .last_applied
                .is_some_and(|id| id.leader_id.term == metrics.current_term);
        let asked = Vote::from(ask.vote).leader_id().term;
        let member = [
            &metrics.membership_config,
            &metrics.committed_membership_config,
        ]
        .iter()
        .any(|membership| membership.get_node(&from).is_some());
        if !established || member || asked > metrics.current_term + 1 {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::Forbidden,
            format!(
                "server {from} was removed from the cluster; to have it back, add it under a new id with 'reckon member add NAME \
                 HOST:PORT' and start it with an empty directory"
            ),
        ))
    }

    fn seal<T: Serialize>(&self, body: T) -> Bytes {
        codec::encode(&Message {
            from: self.wires.acquaintances.me().clone(),
            body,
        })
    }

    /// It waits until what is committed is applied there.
    fn read_by(&self, follower: &PeerIdentity) {
        if let Some(awaited) = self.wires.awaited_on(&follower.name) {
            awaited.by_reader();
        }
    }

    fn upper(&self, method: &str) -> Result<Arc<dyn Handler>, Refusal> {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        handlers
            .get(method)
            .cloned()
            .ok_or_else(|| Refusal::new(RefusalCode::UnknownMethod, method))
    }

    async fn append(&self, append: Append, entries: Vec<Entry>) -> Result<Bytes, Refusal> {
        if let Err(reason) = self.wires.acquaintances.learn_all(&append.known) {
            self.wires.is_refused(reason.clone());
            // It is this server that is none any more: whom it is forbidden to call would take that to be himself.
            return Err(Refusal::new(RefusalCode::Unavailable, reason));
        }
        let request = AppendEntriesRequest {
            vote: append.vote.into(),
            prev_log_id: append.previous.map(LogId::from),
            entries,
            leader_commit: append.committed.map(LogId::from),
        };
        let answer = self.raft.append_entries(request).await.map_err(failed)?;
        let outcome = match answer {
            AppendEntriesResponse::Success => AppendOutcome::Success,
            AppendEntriesResponse::PartialSuccess(upto) => {
                AppendOutcome::Partial(upto.map(Position::from))
            }
            AppendEntriesResponse::Conflict => AppendOutcome::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendOutcome::HigherVote((&vote).into()),
        };
        // An old leader's clock is not the log's any more.
        if let (false, Some(clock_ms)) = (
            matches!(outcome, AppendOutcome::HigherVote(_)),
            append.clock_ms,
        ) {
            self.wires.time.heard(clock_ms);
        }
        Ok(self.seal(Appended {
            wall_ms: self.wires.time.wall_ms(),
            outcome,
        }))
    }

    async fn vote(&self, ask: AskVote, pre: bool) -> Result<Bytes, Refusal> {
        let mut request = VoteRequest::new(Vote::from(ask.vote), ask.last.map(LogId::from));
        request.leadership_transfer = ask.transfer;
        let answer = if pre {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        };
        let answer = answer.map_err(failed)?;
        Ok(self.seal(Voted {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last: answer.last_log_id.map(Position::from),
        }))
    }

    async fn transfer(&self, transfer: Transfer) -> Result<Bytes, Refusal> {
        if self.wires.aside.load(Ordering::Acquire) {
            return Err(unavailable("this server stands aside and does not lead"));
        }
        let request = TransferLeaderRequest::new(
            transfer.vote.into(),
            transfer.to,
            transfer.last.map(LogId::from),
        );
        let answer = self
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(unavailable)?;
        Ok(self.seal(match answer {
            Ok(()) => Transferred::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Transferred::VoteChanged {
                    expected: (&expected).into(),
                    actual: (&actual).into(),
                }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Transferred::NotFlushed {
                    expected: expected.map(Position::from),
                    actual: actual.map(Position::from),
                }
            }
        }))
    }

    /// Answers with the vote known here: a leader that sees a higher one need not go on.
    fn snapshot_begin(&self, begin: SnapshotBegin) -> Result<Bytes, Refusal> {
        use openraft::async_runtime::watch::WatchReceiver;
        let mine = self.raft.metrics().borrow_watched().vote;
        let theirs = Vote::from(begin.vote);
        if mine > theirs {
            return Ok(self.seal(FlatVote::from(&mine)));
        }
        self.wires
            .snapshots
            .receive(begin.transfer, begin.meta, begin.files)
            .map_err(unavailable)?;
        Ok(self.seal(FlatVote::from(&theirs)))
    }

    async fn snapshot_chunk(&self, chunk: Chunk) -> Result<Bytes, Refusal> {
        let snapshots = self.wires.snapshots.clone();
        let taken = seams::run(&*self.files, move || snapshots.chunk(&chunk))
            .await
            .map_err(unavailable)?;
        taken.map_err(|error| Refusal::new(RefusalCode::Failed, error.to_string()))?;
        Ok(self.seal(()))
    }

    async fn snapshot_end(&self, end: SnapshotEnd) -> Result<Bytes, Refusal> {
        let snapshots = self.wires.snapshots.clone();
        let received = seams::run(&*self.files, move || snapshots.received(end.transfer))
            .await
            .map_err(unavailable)?;
        let (meta, data) =
            received.map_err(|error| Refusal::new(RefusalCode::Failed, error.to_string()))?;
        let snapshot = SnapshotOf::<Types, Snapshot> {
            meta,
            snapshot: data,
        };
        let answer = self
            .raft
            .install_full_snapshot(end.vote.into(), snapshot)
            .await
            .map_err(unavailable)?;
        Ok(self.seal(FlatVote::from(&answer.vote)))
    }
}

fn invalid(error: std::io::Error) -> Refusal {
    Refusal::new(RefusalCode::Invalid, error.to_string())
}

fn unavailable(error: impl ToString) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, error.to_string())
}

fn failed(error: RaftError<Types>) -> Refusal {
    unavailable(error)
}
