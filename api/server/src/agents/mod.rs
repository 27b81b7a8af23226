//! The agents' sessions: assignments go down, reports come up, streams ride along.
//!
//! Opening a session is an event whose revision is the epoch; a higher one fences a lower. Heartbeats are the session and no events:
//! `vouch` tells the leader which sessions live. `route` follows the fold and sends each node what is its own; `report` makes
//! proposals of what agents say; `streams` carries logs. The gRPC shell is `service`; the simulation calls `Hub::serve` without it.

mod pods;
mod report;
mod route;
mod service;
mod session;
mod streams;
mod vouch;

pub use service::AgentIdentity;
pub use session::{SessionEnd, outbound};
pub use streams::{LogStream, LogsRequest, StreamError};

pub(crate) use streams::METHOD_LOGS;
pub(crate) use vouch::METHOD_VOUCH;

use crate::core::Core;
use agent::proto::ServerMessage;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Messages that may wait for a slow agent; one that is slower loses its session and dials again.
const OUTBOUND_MAX: usize = 8_192;

/// All sessions of this server. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// The way to a hub as long as somebody else holds it.
pub(crate) struct WeakHub(Weak<Inner>);

impl WeakHub {
    pub(crate) fn upgrade(&self) -> Option<Hub> {
        self.0.upgrade().map(Hub)
    }
}

struct Inner {
    core: Core,
    grace: Duration,
    sessions: Mutex<BTreeMap<String, Held>>,
    router: mpsc::Sender<route::Follow>,
    vouched: Mutex<vouch::Vouched>,
    next_stream: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// One session that this server holds.
struct Held {
    epoch: u64,
    sender: mpsc::Sender<ServerMessage>,
    heard: Instant,
    streams: BTreeMap<u64, streams::Open>,
    /// Set to true to end the session: superseded, or this server hears no leader.
    end: watch::Sender<bool>,
}

impl Hub {
    /// `grace`: how long a session may go unvouched before it is lost.
    pub fn start(core: Core, grace: Duration) -> Self {
        let (router, follows) = mpsc::channel(route::FOLLOWS_MAX);
        let hub = Self(Arc::new(Inner {
            core: core.clone(),
            grace,
            sessions: Mutex::default(),
            router,
            vouched: Mutex::default(),
            next_stream: AtomicU64::new(1),
            tasks: Mutex::default(),
        }));
        let tasks = vec![
            tokio::spawn(route::run(core, follows)).abort_handle(),
            tokio::spawn(vouch::run(hub.clone())).abort_handle(),
        ];
        *hub.0.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        hub
    }

    /// Drops its tasks where they stand.
    pub fn abort(&self) {
        self.0
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
            .for_each(|task| task.abort());
    }

    pub(crate) fn downgrade(&self) -> WeakHub {
        WeakHub(Arc::downgrade(&self.0))
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0.core
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        // A panic while it was held left a map of handles: as good as before.
        self.0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stream_id(&self) -> u64 {
        self.0.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    /// How many sessions this server holds.
    pub fn len(&self) -> usize {
        self.sessions().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
