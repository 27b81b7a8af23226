//! The facade: one server's part in the replicated log.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use seams::{
    ByteStream, Damages, DiskError, DiskOptions, Handler, Network, NetworkError, Peer, Seams,
    Statistics, Strand,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::append::Limits;
use crate::durations::Counted;
use crate::election::stand_at_start;
use crate::identity::{Acquaintances, Identity, NODE_FILE, refused};
use crate::incoming::{Door, Handlers, Incoming, Raft};
use crate::log_store::{Keep, LogStore};
use crate::machine::{self, Applier, Machine};
use crate::publisher::Publisher;
use crate::read::{ReadError, ReadIndex};
use crate::rebuild::how_to_rebuild;
use crate::status::Status;
use crate::timekeeper::Timekeeper;
use crate::transport::{Links, Wires};
use crate::types::{Address, NodeId, Position, Seeded};

/// The log's database in the server's directory.
pub(crate) const LOG: &str = "log";
/// How long a hand-over of leadership may take.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(3);
/// It is given up where no majority has answered for so long, as when all stop at once: nobody can be elected then.
const TRANSFER_UNANSWERED: Duration = Duration::from_secs(1);
const TRANSFER_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Entries in one message to a follower; bytes bound it too, in the log store.
const REPLICATION_ENTRIES_MAX: u64 = 1_000;
/// The first of the first members forms the cluster; each after it does so this much later, if nobody has by then.
const FORM_DELAY: Duration = Duration::from_secs(2);
/// Of the bytes that are kept behind a snapshot, a clean stop leaves this part: a start reads them all.
const KEPT_STOPPED: u64 = 8;
/// openraft's own wait between tries to reach a server that does not answer.
const BACKOFF: &str = "20ms 50ms 100ms ...500ms";

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub id: NodeId,
    /// The cluster's id, the same on all its servers and never on another's. A disk that was recovered has it with an end of its
    /// own ([`Node::cluster`]).
    pub cluster: String,
    /// The first members, this server among them, where a cluster is to be formed; all of them may be given the same, at
    /// every start: it counts only on disks that are new. None for a server that is added to a running cluster.
    pub bootstrap: Option<Vec<Peer>>,
    pub timings: Timings,
    /// A snapshot is taken when so many bytes of log have come since the last.
    pub snapshot_log_bytes: u64,
    /// What is kept behind a snapshot, for followers that are a little late: so many entries, and of them the newest of so many bytes.
    pub keep_entries: u64,
    pub keep_bytes: u64,
}

impl NodeConfig {
    pub fn new(id: NodeId, cluster: impl Into<String>) -> Self {
        Self {
            id,
            cluster: cluster.into(),
            bootstrap: None,
            timings: Timings::default(),
            snapshot_log_bytes: 64 << 20,
            keep_entries: 5_000,
            keep_bytes: 32 << 20,
        }
    }
}

/// When a leader counts as lost. A follower waits `election_max_ms` (as long as it owes the leader loyalty) and then a
/// random time between `election_min_ms` and `election_max_ms` without a message, before it stands for election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for Timings {
    /// A leader that is killed is replaced after 0.55 to 0.7 s, and one that is only slow has to miss seven heartbeats.
    fn default() -> Self {
        Self {
            heartbeat_ms: 75,
            election_min_ms: 200,
            election_max_ms: 350,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the Raft log: {0}")]
    Disk(#[from] DiskError),
    /// What is on the disk is damaged, or another server's.
    #[error("the Raft log: {0}")]
    Log(#[from] io::Error),
    #[error("the configuration: {0}")]
    Config(String),
    #[error("starting: {0}")]
    Raft(String),
    /// The same, for what was read on the way is not what was written.
    #[error("starting: {0}")]
    Damaged(String),
}

impl StartError {
    /// What is on the disk is not what was written there.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_corrupt(),
            Self::Log(error) => DiskError::makes_corrupt(error),
            Self::Damaged(_) => true,
            Self::Config(_) | Self::Raft(_) => false,
        }
    }
}

/// Why leadership stayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this server does not lead")]
    NotLeader,
    #[error("there is no other voting member to lead")]
    NobodyElse,
    #[error("no majority of the members answers")]
    NoMajority,
    #[error("the other did not take over in time")]
    TimedOut,
    #[error("this server is stopping")]
    Stopped,
}

/// What a node has measured since it was started: for people to look at, never to decide by.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// How long synced writes of the log took.
    pub log_syncs: Counted,
    /// How long groups of entries took to apply.
    pub applies: Counted,
    pub snapshots_taken: u64,
    /// Bytes of log since the last snapshot.
    pub log_bytes: u64,
    /// By how much this server's wall clock is ahead of the log's clock. None: it has heard no leader since its start.
    pub clock_off_ms: Option<i64>,
}

/// A running node; clones are handles on the same. When the last is dropped without [`Node::stop`] it ends as if killed.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    id: NodeId,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    machine: Arc<machine::Shared>,
    keep_stopped: Keep,
    wires: Arc<Wires>,
    reads: ReadIndex,
    handlers: Handlers,
    network: Arc<dyn Network>,
    strand: Strand,
    door: Arc<Door>,
    status: watch::Receiver<Status>,
    pub(crate) appends: Limits,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Starts a server's node: reads its log, applies again what is known to be committed, and takes its place.
    pub async fn start(
        config: NodeConfig,
        seams: Seams,
        machine: Box<dyn Machine>,
    ) -> Result<Self, StartError> {
        let (log, identity) = open_log(&config, &seams)?;
        let cluster = identity.cluster.clone();
        let thread = |name| {
            seams
                .runtime
                .worker(name)
                .map_err(|error| StartError::Raft(error.to_string()))
        };
        let applier = Applier::new(
            machine,
            seams.directory.clone(),
            &*seams.runtime,
            log.clone(),
        )?;
        let machine = applier.shared();
        let wires = Arc::new(Wires {
            network: seams.network.clone(),
            entropy: seams.entropy.clone(),
            acquaintances: Acquaintances::new(identity, log.clone())?,
            time: Timekeeper::new(seams.clock.clone(), machine.clone()),
            snapshots: machine.snapshots().clone(),
            files: thread("snapshot-send")?,
            awaited: Mutex::default(),
            refused: watch::Sender::new(None),
            aside: AtomicBool::default(),
        });
        let links = Links {
            wires: wires.clone(),
        };
        let raft_config = Arc::new(raft_config(&config, &cluster)?);
        let seed = seams.entropy.next_u64();
        let starting = Raft::new(config.id, raft_config, links, log.clone(), applier);
        let raft: Raft = seams
            .strand
            .enter(Seeded::scope(seed, starting))
            .await
            .map_err(|error| {
                let found = log.damages().found() + machine.snapshots().damages().found();
                if found > 0 {
                    StartError::Damaged(error.to_string())
                } else {
                    StartError::Raft(error.to_string())
                }
            })?;
        wires.time.follow(raft.metrics());

        let reads = ReadIndex::new(
            config.id,
            raft.clone(),
            log.clone(),
            wires.clone(),
            machine.applied(),
        );
        let handlers = Handlers::default();
        let door = Door::to(Incoming {
            raft: raft.clone(),
            wires: wires.clone(),
            reads: reads.clone(),
            handlers: handlers.clone(),
            files: thread("snapshot-receive")?,
        });
        seams.network.serve(door.clone());
        let (publish, status) = watch::channel(Status::of(config.id));
        let publisher = Publisher {
            raft: raft.clone(),
            membership: None,
            metrics: raft.metrics(),
            failed: machine.failed(),
            unwritten: log.failed(),
            refused: wires.refused.subscribe(),
            log: log.clone(),
            publish: publish.clone(),
            snapshot_log_bytes: config.snapshot_log_bytes,
            keep: Keep {
                entries: config.keep_entries,
                bytes: config.keep_bytes,
            },
            asked: None,
            cut: None,
        };
        let mut tasks = vec![
            tokio::spawn(publisher.run()),
            tokio::spawn(recovery(raft.clone(), publish)),
            tokio::spawn(stand_at_start(
                config.id,
                raft.clone(),
                {
                    let wires = wires.clone();
                    move || !wires.aside.load(Ordering::Acquire)
                },
                Duration::from_millis(config.timings.election_min_ms),
            )),
        ];
        if let Some(members) = config.bootstrap {
            if !members.iter().any(|peer| peer.id == config.id) {
                return Err(StartError::Config(
                    "the first members don't include this server".to_owned(),
                ));
            }
            tasks.push(tokio::spawn(form(raft.clone(), config.id, members)));
        }
        let inner = Inner {
            id: config.id,
            raft,
            log,
            machine,
            keep_stopped: Keep {
                entries: config.keep_entries,
                bytes: config.keep_bytes / KEPT_STOPPED,
            },
            wires,
            reads,
            handlers,
            network: seams.network,
            strand: seams.strand,
            door,
            status,
            appends: Limits::default(),
            tasks: Mutex::new(tasks),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The cluster's id, with its end if it was recovered from one disk: what a server that joins has to be started with.
    pub fn cluster(&self) -> &str {
        &self.inner.wires.acquaintances.me().cluster
    }

    /// The greatest id under which a server has ever been seen; 0 for none.
    pub fn last_known_id(&self) -> NodeId {
        self.inner.wires.acquaintances.last_known()
    }

    /// Whether this was a member, as was committed, and is none any more: its id is used up. One that came and
    /// went between two snapshots, a server that was rebuilt from them does not know of.
    pub fn is_gone(&self, id: NodeId) -> bool {
        self.inner.wires.acquaintances.is_gone(id)
    }

    /// Whether a server has ever been seen under this id, here or by a leader that this server followed.
    pub fn knows_disk(&self, id: NodeId) -> bool {
        self.inner.wires.acquaintances.knows(id)
    }

    /// Where its tasks run, for those that hand it work or take it from there.
    pub fn strand(&self) -> &Strand {
        &self.inner.strand
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.inner.status.borrow().clone()
    }

    /// The term and who leads it, as far as is known here.
    pub fn led(&self) -> Option<(u64, Peer)> {
        let status = self.inner.status.borrow();
        status.leader.clone().map(|leader| (status.term, leader))
    }

    /// Follows how it stands.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Follows the last entry applied here.
    pub fn applied(&self) -> watch::Receiver<Option<Position>> {
        self.inner.machine.applied()
    }

    /// Waits until what this server may have served before its start is applied again ([`Status::recovered`]).
    pub async fn recovered(&self) {
        let mut status = self.watch();
        // The sender is gone only when the node stops, and then nothing is served either.
        let _ = status.wait_for(|status| status.recovered).await;
    }

    /// An index that covers all that was acknowledged anywhere before this call, and up to which this server has applied.
    /// On any server, within 5 s.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        self.inner.reads.read().await
    }

    /// The log's clock, on a leader that has applied an entry of its term; it never goes back. None on any other server.
    pub fn clock_ms(&self) -> Option<u64> {
        self.inner.wires.time.leader_ms()
    }

    /// About what the log's clock is now, on any server: for times inside an object's body.
    pub fn clock_estimate_ms(&self) -> u64 {
        self.inner
            .wires
            .time
            .leader_ms()
            .unwrap_or_else(|| self.inner.wires.time.estimate_ms())
    }

    /// Hands leadership to this member, or to the one that is furthest. Returns who leads.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let target = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(self.inner.id) {
                return Err(TransferError::NotLeader);
            }
            let matched = |id: &NodeId| {
                metrics
                    .replication
                    .as_ref()
                    .and_then(|all| all.get(id).copied().flatten())
            };
            let others = metrics
                .membership_config
                .voter_ids()
                .filter(|id| *id != self.inner.id);
            let mut candidates = others.filter(|id| to.is_none_or(|to| to == *id));
            // The first of equals, so that a simulation always chooses the same.
            let first = candidates.next().ok_or(TransferError::NobodyElse)?;
            candidates.fold(first, |best, id| {
                if matched(&id) > matched(&best) {
                    id
                } else {
                    best
                }
            })
        };
        self.inner
            .raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|_| TransferError::Stopped)?;
        let mut status = self.watch();
        let me = self.inner.id;
        let moved =
            status.wait_for(|status| status.leader.as_ref().is_some_and(|leader| leader.id != me));
        tokio::select! {
            biased;
            moved = moved => moved
                .map_err(|_| TransferError::Stopped)?
                .leader
                .as_ref()
                .map(|leader| leader.id)
                .ok_or(TransferError::Stopped),
            () = self.unanswered() => Err(TransferError::NoMajority),
            () = tokio::time::sleep(TRANSFER_DEADLINE) => Err(TransferError::TimedOut),
        }
    }

    /// Returns once this server leads and no majority has answered it for a while.
    async fn unanswered(&self) {
        loop {
            tokio::time::sleep(TRANSFER_LOOK_EVERY).await;
            let answered = self.inner.raft.metrics().borrow_watched().last_quorum_acked;
            if answered.is_some_and(|at| at.elapsed() > TRANSFER_UNANSWERED) {
                return;
            }
        }
    }

    /// Stops cleanly: hands leadership over, stops taking part, flushes machine and log, and leaves of the log what is short to read.
    pub async fn stop(&self) -> io::Result<()> {
        if self.status().leads()
            && let Err(error) = self.transfer_leadership(None).await
            && error != TransferError::NobodyElse
        {
            tracing::warn!(%error, "stopping without handing leadership over");
        }
        self.end();
        self.inner.raft.shutdown().await.map_err(io::Error::other)?;
        self.inner.machine.with(|machine| machine.flush()).await?;
        if let Err(error) = self.shorten_log().await {
            tracing::warn!(%error, "the log stays as long as it is");
        }
        self.inner.log.flush().await
    }

    /// A long log is for those that are behind; this server will be behind the others itself when it comes back.
    async fn shorten_log(&self) -> io::Result<()> {
        let Inner {
            log,
            machine,
            keep_stopped,
            ..
        } = &*self.inner;
        if log.bytes_after(None) <= keep_stopped.bytes {
            return Ok(());
        }
        match machine.take_snapshot().await?.meta.last_log_id {
            Some(last) => log.shorten(last.index, *keep_stopped).await,
            None => Ok(()),
        }
    }

    /// Ends it as if it were killed, whoever still holds a handle: nothing is handed over, nothing flushed, and what is under way
    /// fails. Must be called within a tokio runtime.
    pub fn kill(&self) {
        self.end();
        let raft = self.inner.raft.clone();
        tokio::spawn(async move {
            // It fails only if openraft panicked, and then it has ended all the same.
            let _ = raft.shutdown().await;
        });
    }

    /// This other server forwards a proposal: where this one leads, it tells it of the commit at once.
    pub fn forwarded_by(&self, server: &str) {
        if let Some(awaited) = self.inner.wires.awaited_on(server) {
            awaited.by_proposer();
        }
    }

    /// Answers calls of this method by other servers. Methods of raft's own begin with `raft.`. The node keeps the handler: one that
    /// holds the node, by whatever way, would keep it alive for ever.
    pub fn handle(&self, method: &str, handler: Arc<dyn Handler>) {
        let mut handlers = self
            .inner
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        handlers.insert(method.to_owned(), handler);
    }

    /// Calls another server.
    pub async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        self.inner.network.call(to, method, body, deadline).await
    }

    /// Opens a stream from another server.
    pub async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        self.inner.network.stream(to, method, body, deadline).await
    }

    /// Takes a snapshot now.
    pub async fn snapshot(&self) -> Result<(), ReadError> {
        self.inner
            .raft
            .trigger()
            .snapshot()
            .await
            .map_err(|_| ReadError::Stopped)
    }

    /// What it has measured.
    pub fn measured(&self) -> Measured {
        let Inner {
            log,
            machine,
            wires,
            ..
        } = &*self.inner;
        let snapshot = self.inner.status.borrow().snapshot;
        Measured {
            log_syncs: log.syncs().counted(),
            applies: machine.applies().counted(),
            snapshots_taken: machine.snapshots_taken(),
            log_bytes: log.bytes_after(snapshot.map(|position| position.index)),
            clock_off_ms: wires.time.off_ms(),
        }
    }

    /// Never comes to lead again, for this server is not what the others are: it stands for no election, and is handed no leadership.
    /// One that leads has to hand it over besides. It goes on voting and storing the log, which is as good as anybody's.
    pub fn stand_aside(&self) {
        self.inner.wires.aside.store(true, Ordering::Release);
        self.inner.raft.runtime_config().elect(false);
    }

    /// What was found damaged of the log since the start, and of the snapshots that were to be sent.
    pub fn damages(&self) -> (&Damages, &Damages) {
        let snapshots = self.inner.machine.snapshots();
        (self.inner.log.damages(), snapshots.damages())
    }

    /// The log's disk counters: how often it was synced, among others.
    pub fn log_statistics(&self) -> Statistics {
        self.inner.log.statistics()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    fn end(&self) {
        self.inner.end();
    }
}

impl Inner {
    fn end(&self) {
        self.door.close();
        for task in self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens the log of a disk that is this server's, or is new.
fn open_log(config: &NodeConfig, seams: &Seams) -> Result<(LogStore, Identity), StartError> {
    let directory = &*seams.directory;
    let identity = Identity::read(directory)?;
    if let Some(identity) = &identity {
        identity.must_be(&config.cluster, config.id)?;
        if !directory.exists(LOG)? {
            return Err(refused(&format!(
                "this server has been here before, but its log is gone: {}",
                how_to_rebuild(identity.id)
            ))
            .into());
        }
    }
    let disk = directory.open(LOG, &DiskOptions::with_wal())?;
    let log = LogStore::open(disk, &*seams.runtime)?;
    let identity = match identity {
        Some(identity) => identity,
        None if log.is_used() => {
            return Err(refused(&format!(
                "there is a log here, and the file '{NODE_FILE}', which says whose it is, is gone: {}",
                how_to_rebuild("NAME")
            ))
            .into());
        }
        None => Identity::settle(directory, &*seams.entropy, &config.cluster, config.id)?,
    };
    Ok((log, identity))
}

fn raft_config(config: &NodeConfig, cluster: &str) -> Result<Config, StartError> {
    let Timings {
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
    } = config.timings;
    let raft = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: election_min_ms,
        election_timeout_max: election_max_ms,
        max_payload_entries: REPLICATION_ENTRIES_MAX,
        // By bytes, which openraft can't count; see Publisher.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        backoff: BACKOFF.to_owned(),
        enable_pre_vote: Some(true),
        // A leader that comes back is elected anew: what it had committed last may not be on its disk.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate()
        .map_err(|error| StartError::Config(error.to_string()))
}

/// Forms the cluster, on a disk that is new. Any first member may, for all are given the same; but if all did at once they
/// would all stand for election at once.
async fn form(raft: Raft, id: NodeId, members: Vec<Peer>) {
    let rank = members.iter().filter(|peer| peer.id < id).count() as u32;
    tokio::time::sleep(FORM_DELAY * rank).await;
    let nodes: BTreeMap<NodeId, Address> = members
        .iter()
        .map(|peer| (peer.id, Address::from(peer)))
        .collect();
    match raft.initialize(nodes).await {
        // Another has, or it was long ago.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => tracing::error!(%error, "the cluster can't be formed"),
    }
}

async fn recovery(raft: Raft, publish: watch::Sender<Status>) {
    if raft.wait_for_recovery(None).await.is_ok() {
        publish.send_modify(|status| status.recovered = true);
    }
}
