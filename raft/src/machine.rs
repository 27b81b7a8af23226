//! What committed entries are applied to.
//!
//! The machine is the upper layer's; raft only says when. It runs on a thread of its own: groups of committed entries,
//! snapshots and their installation come one after another, each whole. A small group that is applied in a moment is not worth two
//! switches between threads, and is applied among Raft's tasks. An error is final: a machine that could not apply an entry is no
//! longer a copy of the others', so the node stops serving and says why.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftSnapshotBuilder};
use seams::{Directory, DiskError, Runtime, Worker};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::codec::{decode_membership, encode_membership, entry_bytes};
use crate::durations::Durations;
use crate::log_store::LogStore;
use crate::snapshot::{Snapshot, Snapshots};
use crate::types::{
    Entry, EntryPayload, LogId, NodeId, Position, SnapshotMeta, StoredMembership, Types,
};

/// What one group handed to the machine may hold.
const GROUP_ENTRIES_MAX: usize = 1_000;
const GROUP_BYTES_MAX: usize = 16 << 20;
/// What a group may hold that is applied among Raft's tasks: so much is done in less time than a heartbeat may be late.
const AT_ONCE_ENTRIES_MAX: usize = 4;
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// A state that entries are applied to, in the order of the log, the same on every server.
pub trait Machine: Send + 'static {
    /// Where it stands, as written with the effects of the last group.
    fn applied(&self) -> Result<Applied, MachineError>;

    /// Applies a group. What it does, the last entry's position and the last membership in it are written as one batch;
    /// it need not be durable yet.
    fn apply(&mut self, group: Vec<Committed>) -> Result<(), MachineError>;

    /// Whether a few KiB are applied in a moment: nobody else is at it, and nothing it does waits for a disk.
    fn takes_at_once(&self) -> bool;

    /// The database that it lives in, by its name in the server's directory.
    fn database(&self) -> String;

    /// The log's clock as stamped on the last entry applied, in milliseconds; zero where there is none.
    fn clock_ms(&self) -> u64;

    /// Makes all that was applied durable.
    fn flush(&mut self) -> Result<(), MachineError>;

    /// The index up to which what was applied is durable: what the log may forget.
    fn flushed(&self) -> Option<u64>;

    /// A durable copy of its database as it is now, under this name in the server's directory.
    fn checkpoint(&mut self, into: &str) -> Result<(), MachineError>;

    /// Becomes what the copy of another server's checkpoint under this name is, which is verified and synced. From here
    /// on the machine owns that database. The switch is durable when this returns, and whole if the server dies within.
    fn install(&mut self, from: &str) -> Result<(), MachineError>;
}

/// Where a machine stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub position: Option<Position>,
    /// The membership last applied, as it was handed over; empty where there was none.
    pub membership: Bytes,
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub position: Position,
    /// What was appended. Raft's own entries carry nothing, and still move the position.
    pub payload: Option<Bytes>,
    /// To be kept, and handed back in [`Applied`].
    pub membership: Option<Bytes>,
}

/// Why a machine could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

impl From<DiskError> for MachineError {
    fn from(error: DiskError) -> Self {
        Self(error.to_string())
    }
}

/// The machine as openraft drives it.
pub(crate) struct Applier {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    machine: Arc<Mutex<Box<dyn Machine>>>,
    worker: Box<dyn Worker>,
    snapshots: Snapshots,
    log: LogStore,
    applied: watch::Sender<Option<Position>>,
    clock_ms: Arc<AtomicU64>,
    failed: watch::Sender<Option<String>>,
    /// How long each group took to apply.
    applies: Arc<Durations>,
    snapshots_taken: AtomicU64,
}

impl Applier {
    pub(crate) fn new(
        machine: Box<dyn Machine>,
        directory: Arc<dyn Directory>,
        runtime: &dyn Runtime,
        log: LogStore,
    ) -> io::Result<Self> {
        let at = machine.applied().map_err(io::Error::other)?.position;
        let clock_ms = Arc::new(AtomicU64::new(machine.clock_ms()));
        let snapshots = Snapshots::open(directory, &machine.database())?;
        let shared = Shared {
            machine: Arc::new(Mutex::new(machine)),
            worker: runtime.worker("apply").map_err(io::Error::other)?,
            snapshots,
            log,
            applied: watch::Sender::new(at),
            clock_ms,
            failed: watch::Sender::new(None),
            applies: Arc::default(),
            snapshots_taken: AtomicU64::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Shared {
    /// Follows the last entry applied here.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<Position>> {
        self.applied.subscribe()
    }

    /// The clock stamped on the last entry applied here.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Acquire)
    }

    /// Why the machine has stopped, once it has.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// How long groups took to apply.
    pub(crate) fn applies(&self) -> &Durations {
        &self.applies
    }

    /// How many snapshots were taken here since the start.
    pub(crate) fn snapshots_taken(&self) -> u64 {
        self.snapshots_taken.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Does something to the machine, on its thread, between two groups.
    pub(crate) async fn with<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Machine) -> Result<T, MachineError> + Send + 'static,
    {
        let machine = self.machine.clone();
        let job = move || {
            let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut **machine)
        };
        let result = match seams::run(&*self.worker, job).await {
            Ok(result) => result,
            Err(error) => Err(MachineError(format!("applying: {error}"))),
        };
        result.map_err(|error| self.has_failed(error))
    }

    fn has_failed(&self, error: MachineError) -> io::Error {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| error.to_string());
            first
        });
        io::Error::other(error)
    }

    /// A group of so many bytes.
    async fn apply(&self, group: Vec<Committed>, bytes: usize) -> io::Result<()> {
        let Some(last) = group.last().map(|committed| committed.position) else {
            return Ok(());
        };
        let small = group.len() <= AT_ONCE_ENTRIES_MAX && bytes <= AT_ONCE_BYTES_MAX;
        let (clock, applies) = (self.clock_ms.clone(), self.applies.clone());
        let log = self.log.clone();
        let work = move |machine: &mut dyn Machine| {
            let started = Instant::now();
            remember_who_left(machine, &group, &log)?;
            machine.apply(group)?;
            applies.since(started);
            clock.store(machine.clock_ms(), Ordering::Release);
            Ok(())
        };
        let applied = if small { self.at_once(work) } else { Err(work) };
        match applied {
            Ok(result) => result.map_err(|error| self.has_failed(error))?,
            Err(work) => self.with(work).await?,
        }
        self.applied.send_replace(Some(last));
        Ok(())
    }

    /// Does something to the machine here and now; gives it back where that might wait for something.
    fn at_once<F>(&self, work: F) -> Result<Result<(), MachineError>, F>
    where
        F: FnOnce(&mut dyn Machine) -> Result<(), MachineError>,
    {
        if !self.worker.is_idle() {
            return Err(work);
        }
        match self.machine.try_lock() {
            Ok(mut machine) if machine.takes_at_once() => {
                // A panic is told as that of the thread is.
                let result = catch_unwind(AssertUnwindSafe(|| work(&mut **machine)));
                Ok(
                    result
                        .unwrap_or_else(|_| Err(MachineError("applying: it panicked".to_owned()))),
                )
            }
            Ok(_) | Err(_) => Err(work),
        }
    }

    /// A checkpoint of this moment, as the newest snapshot.
    pub(crate) async fn take_snapshot(&self) -> io::Result<SnapshotOf<Types, Snapshot>> {
        let snapshots = self.snapshots.clone();
        // All that waits for the disk is done on its thread, the last of it too: Raft's tasks run as one.
        let (meta, published) = self
            .with(move |machine| {
                machine.flush()?;
                let applied = machine.applied()?;
                let name = snapshots.name_for(applied.position);
                snapshots.discard(&name)?;
                machine.checkpoint(&name)?;
                let meta = SnapshotMeta {
                    last_log_id: applied.position.map(LogId::from),
                    last_membership: stored_membership(&applied)?,
                };
                let published = snapshots.publish(&meta, name);
                Ok((meta, published))
            })
            .await?;
        let snapshot = published?;
        self.snapshots_taken.fetch_add(1, Ordering::Relaxed);
        Ok(SnapshotOf::<Types, Snapshot> { meta, snapshot })
    }
}

/// Members that the group's memberships leave out.
fn remember_who_left(
    machine: &dyn Machine,
    group: &[Committed],
    log: &LogStore,
) -> Result<(), MachineError> {
    let changes = group.iter().filter_map(|entry| entry.membership.as_ref());
    let mut changes = changes.peekable();
    if changes.peek().is_none() {
        return Ok(());
    }
    let mut before = ids(&stored_membership(&machine.applied()?)?);
    for membership in changes {
        let membership = decode_membership(membership)
            .map_err(|error| MachineError(format!("the membership committed: {error}")))?;
        let now = ids(&membership);
        before
            .difference(&now)
            .for_each(|id| log.remember_gone(*id));
        before = now;
    }
    Ok(())
}

fn ids(membership: &StoredMembership) -> BTreeSet<NodeId> {
    membership.nodes().map(|(id, _)| *id).collect()
}

fn stored_membership(applied: &Applied) -> Result<StoredMembership, MachineError> {
    decode_membership(&applied.membership)
        .map_err(|error| MachineError(format!("the membership kept: {error}")))
}

/// An entry as the machine is handed it.
pub(crate) fn committed(entry: &Entry) -> Committed {
    let membership = entry.get_membership().map(|membership| {
        encode_membership(&StoredMembership::new(Some(entry.log_id), membership))
    });
    let payload = match &entry.payload {
        EntryPayload::Normal(payload) => Some(payload.0.clone()),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    };
    Committed {
        position: entry.log_id.into(),
        payload,
        membership,
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.shared.with(|machine| machine.applied()).await?;
        let membership = decode_membership(&applied.membership)?;
        Ok((applied.position.map(LogId::from), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut group = Vec::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            bytes += entry_bytes(&entry);
            group.push(committed(&entry));
            waiting.extend(responder);
            if group.len() >= GROUP_ENTRIES_MAX || bytes >= GROUP_BYTES_MAX {
                self.shared.apply(std::mem::take(&mut group), bytes).await?;
                waiting.drain(..).for_each(|responder| responder.send(()));
                bytes = 0;
            }
        }
        self.shared.apply(group, bytes).await?;
        waiting.into_iter().for_each(|responder| responder.send(()));
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            shared: self.shared.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        let snapshots = self.shared.snapshots.clone();
        let clock = self.shared.clock_ms.clone();
        let log = self.shared.log.clone();
        let now = ids(&meta.last_membership);
        let expected = meta.last_log_id.map(Position::from);
        self.shared
            .with(move |machine| {
                // Its own checkpoint stays one: others may be sent it.
                let snapshot = if snapshot.is_received() {
                    snapshot
                } else {
                    snapshots.copy(&snapshot)?
                };
                let before = ids(&stored_membership(&machine.applied()?)?);
                // The database is the machine's from here on, also where this fails half way: it may be what it lives in already. If it is
                // not, the next start removes it.
                snapshot.given_away();
                machine.install(snapshot.name())?;
                before
                    .difference(&now)
                    .for_each(|id| log.remember_gone(*id));
                let stands = machine.applied()?.position;
                if stands != expected {
                    let name = snapshot.name();
                    return Err(MachineError(format!(
                        "snapshot {name} holds {stands:?} in place of {expected:?}"
                    )));
                }
                clock.store(machine.clock_ms(), Ordering::Release);
                Ok(())
            })
            .await?;
        self.shared.applied.send_replace(expected);
        // The database will change: what others are sent is a copy of its own.
        self.shared.take_snapshot().await?;
        Ok(())
    }

    /// None too where the log has been cut off above the snapshot, which a crash while one was installed can leave:
    /// openraft then takes a new one. So does this in the place of a damaged one.
    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Snapshot>>, io::Error> {
        let Some((meta, snapshot)) = self.shared.snapshots.current()? else {
            return Ok(None);
        };
        let snapshots = &self.shared.snapshots;
        let lags = meta.last_log_id < self.shared.log.purged();
        if lags || snapshots.must_be_retaken(&snapshot) {
            return self.shared.take_snapshot().await.map(Some);
        }
        Ok(Some(SnapshotOf::<Types, Snapshot> { meta, snapshot }))
    }
}

/// Takes a snapshot between two groups.
pub(crate) struct Builder {
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Snapshot>, io::Error> {
        self.shared.take_snapshot().await
    }
}
