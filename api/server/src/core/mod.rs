//! The inside of one server, without sockets: raft and the event store put together.
//!
//! Whoever is inside a server (the HTTP front door, the agents' hub, the leader's loop, the simulation) proposes and reads through
//! `Core`. It must never know a kind.

mod counts;
mod draw;
mod fence;
mod forward;
mod machine;
mod members;
mod propose;
mod queue;
mod request;
mod status;

pub use draw::Draw;
pub use request::{Draft, ProposeError, Request, TooLarge, Unavailable};
pub use status::{MemberStatus, Status};

pub(crate) use machine::current_database;
pub(crate) use members::{METHOD_HAND_OVER, METHOD_STANDING};
pub use queue::QueueLimits;

pub(crate) use forward::{METHOD_PROPOSE, METHOD_PROPOSE_ALL, METHOD_PROPOSE_ONCE};
pub(crate) use queue::Queue;

use crate::archive::pins::Pins;
use crate::config::DiskReserve;
use crate::divergence::Comparisons;
use crate::retention::Pruning;
use crate::room::Rooms;
use counts::Outcomes;
use fence::Fence;
use forward::Forward;

use eventstore::{Actor, Cause, Entry, Position, Time, View};
use eventstore_disk::Store;
use raft::Node;
use seams::Seams;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a read that names a revision beyond this server's fold waits for it (Kubernetes: 3 s).
const NOT_YET_WAIT: Duration = Duration::from_secs(3);

/// One server without sockets. Cheap to clone.
#[derive(Clone)]
pub struct Core(Arc<Inner>);

struct Inner {
    name: String,
    store: Store,
    node: Node,
    seams: Seams,
    queue: Queue,
    forward: Forward,
    draw: Draw,
    most_level: u32,
    snapshots_installed: Arc<AtomicU64>,
    outcomes: Outcomes,
    fence: Fence,
    comparisons: Comparisons,
    pruning: Pruning,
    rooms: Rooms,
    pins: Pins,
}

/// How a server's inside is started.
pub struct CoreConfig {
    pub name: String,
    pub raft: raft::NodeConfig,
    pub store: eventstore_disk::StoreConfig,
    pub queue: QueueLimits,
    pub disk_reserve: DiskReserve,
    /// None but in the simulation.
    pub tamper: Option<Tamper>,
}

/// Changes what this server's apply is given, so that the simulation can show that a broken apply is caught.
pub type Tamper = Arc<dyn Fn(Position, &mut Entry) + Send + Sync>;

impl Core {
    /// Opens the store, starts raft on it, and the leader's queue. Must be called within a tokio runtime.
    pub async fn start(config: CoreConfig, seams: Seams) -> Result<Self, StartError> {
        let database = machine::current_database(&*seams.directory)?;
        let most_level = config.store.most_level;
        let store = Store::open(seams.directory.clone(), &database, config.store)?;
        let directory = seams.directory.clone();
        let machine = machine::StoreMachine::new(store.clone(), directory, database, config.tamper);
        let snapshots_installed = machine.installed();
        let machine = Box::new(machine);
        let node = Node::start(config.raft, seams.clone(), machine).await;
        // What is applied again on the way reads the state too.
        let node = node.map_err(|error| match store.damages().first() {
            Some(damage) => StartError::Damaged { damage, error },
            None => error.into(),
        })?;
        let fence = Fence::read(&*seams.directory).map_err(eventstore_disk::StoreError::from)?;
        let rooms = Rooms::new(&config.name, config.disk_reserve, seams.directory.clone());
        let queue = Queue::start(node.clone(), config.queue, fence.clone(), rooms.clone());
        let forward = Forward::new(node.clone(), config.queue, seams.entropy.next_u64());
        let draw = Draw::new(seams.entropy.clone());
        Ok(Self(Arc::new(Inner {
            name: config.name,
            store,
            node,
            seams,
            queue,
            forward,
            draw,
            most_level,
            snapshots_installed,
            outcomes: Outcomes::default(),
            fence,
            comparisons: Comparisons::default(),
            pruning: Pruning::default(),
            rooms,
            pins: Pins::default(),
        })))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The highest level of the log that this server reads.
    pub fn most_level(&self) -> u32 {
        self.0.most_level
    }

    /// How often this server's state was replaced by a snapshot that it received, since its start.
    pub fn snapshots_installed(&self) -> u64 {
        self.0.snapshots_installed.load(Ordering::Relaxed)
    }

    /// Events whose replaced versions this server has removed for lying before the horizons, since its start.
    pub fn pruned_events(&self) -> u64 {
        self.0.pruning.read().events
    }

    /// Watches, the past, history.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn node(&self) -> &Node {
        &self.0.node
    }

    pub fn seams(&self) -> &Seams {
        &self.0.seams
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    pub(crate) fn forward(&self) -> &Forward {
        &self.0.forward
    }

    /// What came of the proposals that were made here for callers.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.0.outcomes
    }

    /// What comparing digests with the other servers came to.
    pub(crate) fn comparisons(&self) -> &Comparisons {
        &self.0.comparisons
    }

    /// How removing what lies before the horizons goes here.
    pub(crate) fn pruning(&self) -> &Pruning {
        &self.0.pruning
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// What backups read of the history, as they told this server when it led.
    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// Ids, salts and the ends of generated names.
    pub fn draw(&self) -> &Draw {
        &self.0.draw
    }

    /// This server's fold as it stands: what `resourceVersion=0` reads.
    pub fn view(&self) -> View {
        self.0.store.view()
    }

    /// The log's clock as this server knows it: for times that a writer puts into bodies. Never earlier than the last entry's.
    pub fn now(&self) -> Time {
        Time::from_ms(self.0.node.clock_estimate_ms() as i64).max(self.0.store.view().clock)
    }

    /// A view that holds everything acknowledged anywhere before this call (read index; one round serves all who wait, and this
    /// server has applied up to it).
    pub async fn linearizable(&self, deadline: Instant) -> Result<View, Unavailable> {
        if let Some(why) = self.fenced() {
            return Err(Unavailable(why.to_string()));
        }
        let confirmed = async {
            self.0
                .node
                .read_index()
                .await
                .map_err(|error| Unavailable(error.to_string()))?;
            Ok(self.0.store.view())
        };
        timeout_at(deadline, confirmed).await.unwrap_or_else(|_| {
            Err(Unavailable(
                "the read could not be confirmed with a majority of the servers in time; try again"
                    .to_owned(),
            ))
        })
    }

    /// A view that holds `revision`: waits 3 s for it, or until the deadline.
    pub async fn not_older_than(&self, revision: u64, deadline: Instant) -> Result<View, TooLarge> {
        let deadline = deadline.min(Instant::now() + NOT_YET_WAIT);
        match timeout_at(deadline, self.0.store.wait_revision(revision)).await {
            Ok(Ok(view)) => Ok(view),
            // Too many wait: to the caller the same as not yet.
            Ok(Err(_)) | Err(_) => Err(TooLarge {
                asked: revision,
                current: self.0.store.view().revision,
            }),
        }
    }

    /// Opens a caller's request: its id, and where the log stood when it came.
    pub fn request(&self, actor: Actor, cause: Cause) -> Request {
        Request {
            audit_id: self.0.draw.uuid_at(self.0.node.clock_estimate_ms()),
            actor,
            cause,
            attempt: 0,
            is_new: true,
            first_sent: self.0.store.position().index,
        }
    }

    /// Stops: leadership is handed over first, what is folded is flushed, and what lives is left for the next start.
    pub async fn stop(&self) -> std::io::Result<()> {
        self.0.node.stop().await?;
        if let Err(error) = seams::blocking(|| self.0.store.leave_living()) {
            tracing::warn!(%error, "the next start reads what lives from history");
        }
        Ok(())
    }

    /// Resolves when this server can't go on, with the reason: its disk failed, or it could not apply an entry.
    pub async fn failed(&self) -> String {
        let mut status = self.0.node.watch();
        match status.wait_for(|status| status.failed.is_some()).await {
            Ok(status) => status.failed.clone().unwrap_or_default(),
            Err(_) => "raft ended".to_owned(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] eventstore_disk::StoreError),
    #[error(transparent)]
    Raft(#[from] raft::StartError),
    #[error("{error}; {damage}")]
    Damaged {
        damage: String,
        error: raft::StartError,
    },
}
