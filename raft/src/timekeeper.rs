//! The log's clock on a running node: real time, the machine's last stamp and openraft's state brought to [`LogClock`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use seams::Clock;
use tokio::time::Instant;

use crate::clock::{LogClock, Monotonic};
use crate::machine;
use crate::types::{NodeId, Types};

pub(crate) type Metrics =
    openraft::type_config::alias::WatchReceiverOf<Types, openraft::RaftMetrics<Types>>;

pub(crate) struct Timekeeper {
    clock: Mutex<LogClock>,
    wall: Arc<dyn Clock>,
    origin: Instant,
    machine: Arc<machine::Shared>,
    /// Only what openraft publishes, not openraft itself, which would keep it alive.
    metrics: OnceLock<Metrics>,
}

impl Timekeeper {
    pub(crate) fn new(wall: Arc<dyn Clock>, machine: Arc<machine::Shared>) -> Self {
        Self {
            clock: Mutex::default(),
            wall,
            origin: Instant::now(),
            machine,
            metrics: OnceLock::new(),
        }
    }

    pub(crate) fn follow(&self, metrics: Metrics) {
        // Set once, where the node starts.
        let _ = self.metrics.set(metrics);
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall.wall_ms()
    }

    pub(crate) fn heard(&self, clock_ms: u64) {
        self.with(|clock, at| clock.heard(clock_ms, at));
    }

    pub(crate) fn answered(&self, member: NodeId, wall_ms: u64) {
        self.with(|clock, at| clock.answered(member, wall_ms, at));
    }

    /// The leader's clock; none on other servers, nor on a leader that has not yet applied an entry of its term.
    pub(crate) fn leader_ms(&self) -> Option<u64> {
        let metrics = self.metrics.get()?;
        let term = {
            let metrics = metrics.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            let established = metrics
                .last_applied
                .is_some_and(|id| id.leader_id.term == metrics.current_term);
            if !(leads && established) {
                return None;
            }
            let membership = metrics.membership_config.clone();
            self.with(|clock, _| clock.members(|id| membership.get_node(&id).is_some()));
            metrics.current_term
        };
        let (wall_ms, last_entry_ms) = (self.wall.wall_ms(), self.machine.clock_ms());
        Some(self.with(|clock, at| clock.lead(term, at, wall_ms, last_entry_ms)))
    }

    pub(crate) fn estimate_ms(&self) -> u64 {
        let (wall_ms, last_entry_ms) = (self.wall.wall_ms(), self.machine.clock_ms());
        self.with(|clock, at| clock.estimate(at, wall_ms, last_entry_ms))
    }

    /// By how much this server's wall clock is ahead of the log's clock, as far as that is known here.
    pub(crate) fn off_ms(&self) -> Option<i64> {
        let wall_ms = self.wall.wall_ms();
        self.with(|clock, at| clock.off_ms(at, wall_ms))
    }

    fn with<T>(&self, work: impl FnOnce(&mut LogClock, Monotonic) -> T) -> T {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that two callers can't pass on a later time and then an earlier one.
        let at = self.origin.elapsed().as_micros() as Monotonic;
        work(&mut clock, at)
    }
}
