//! Follows what openraft tells of itself.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::incoming::Raft;
use crate::log_store::{Keep, LogStore};
use crate::status::Status;
use crate::timekeeper::Metrics;
use crate::types::{Position, StoredMembership};

/// A snapshot that was asked for and did not come is asked for again after this.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(60);

/// What moves with every entry is published this often at most: hardly anybody waits for it, and each that looks is woken.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Publishes the status, asks for a snapshot when the log has grown enough, and then for the log to be cut off below.
pub(crate) struct Publisher {
    pub(crate) raft: Raft,
    pub(crate) metrics: Metrics,
    /// Why the machine can't go on, and why the log can't be written, which raft learns with its next append only.
    pub(crate) failed: watch::Receiver<Option<String>>,
    pub(crate) unwritten: watch::Receiver<Option<String>>,
    pub(crate) refused: watch::Receiver<Option<String>>,
    pub(crate) log: LogStore,
    pub(crate) publish: watch::Sender<Status>,
    pub(crate) snapshot_log_bytes: u64,
    /// The snapshot that was the newest when another was asked for, and when that was.
    pub(crate) asked: Option<(Option<Position>, Instant)>,
    pub(crate) keep: Keep,
    /// The snapshot behind which the log was cut off last: openraft waits with it until nobody is being sent what goes.
    pub(crate) cut: Option<Position>,
    /// What the published members were made of: openraft publishes at each heartbeat, and the members hardly ever change.
    pub(crate) membership: Option<Arc<StoredMembership>>,
}

impl Publisher {
    pub(crate) async fn run(mut self) {
        // Who leads, and who the members are: published at once.
        let mut place = self.raft.server_metrics();
        loop {
            self.update();
            if self.wants_snapshot() && self.raft.trigger().snapshot().await.is_err() {
                break;
            }
            if let Some(upto) = self.wants_purge()
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                break;
            }
            self.log.write_committed();
            let next = Instant::now() + LOOK_EVERY;
            let moved = async {
                sleep_until(next).await;
                self.metrics.changed().await
            };
            tokio::select! {
                biased;
                changed = place.changed() => if changed.is_err() { break },
                changed = self.failed.changed() => if changed.is_err() { break },
                changed = self.unwritten.changed() => if changed.is_err() { break },
                changed = self.refused.changed() => if changed.is_err() { break },
                changed = moved => if changed.is_err() { break },
            }
        }
        self.update();
    }

    fn update(&mut self) {
        let metrics = self.metrics.borrow_and_update();
        let failed = self.failed.borrow_and_update().clone();
        let unwritten = self.unwritten.borrow_and_update().clone();
        let refused = self.refused.borrow_and_update().clone();
        let membership = &metrics.membership_config;
        let moved = self
            .membership
            .as_ref()
            .is_none_or(|before| !Arc::ptr_eq(before, membership));
        self.publish.send_if_modified(|status| {
            let mut changed = status.update(&metrics);
            if moved {
                changed |= status.take_members(membership);
            }
            if let Some(reason) = failed.or(unwritten).or(refused)
                && status.failed.as_ref() != Some(&reason)
            {
                status.failed = Some(reason);
                changed = true;
            }
            changed
        });
        if moved {
            self.membership = Some(membership.clone());
        }
    }

    fn wants_snapshot(&mut self) -> bool {
        let (applied, snapshot, failed) = {
            let status = self.publish.borrow();
            (status.applied, status.snapshot, status.failed.is_some())
        };
        if applied <= snapshot || failed {
            return false;
        }
        let index = snapshot.map(|position| position.index);
        if self.log.bytes_after(index) < self.snapshot_log_bytes {
            return false;
        }
        if let Some((before, at)) = self.asked
            && before == snapshot
            && at.elapsed() < SNAPSHOT_RETRY
        {
            return false;
        }
        self.asked = Some((snapshot, Instant::now()));
        true
    }

    /// Up to where, once for each snapshot.
    fn wants_purge(&mut self) -> Option<u64> {
        let snapshot = self.publish.borrow().snapshot?;
        if self.cut.replace(snapshot) == Some(snapshot) {
            return None;
        }
        self.log.purgeable(snapshot.index, self.keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Applied, Committed, Machine, MachineError};
    use crate::node::{Node, NodeConfig};
    use crate::types::{LogId, Types};
    use openraft::async_runtime::watch::WatchSender;
    use openraft::errors::Fatal;
    use openraft::type_config::TypeConfigExt;
    use seams::{
        FileDirectory, MemoryHub, Peer, Seams, Strand, SystemClock, SystemEntropy, ThreadRuntime,
    };
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use tokio::task::consume_budget;

    /// Forgets what it is given.
    struct Forgetful;

    impl Machine for Forgetful {
        fn applied(&self) -> Result<Applied, MachineError> {
            Ok(Applied::default())
        }

        fn apply(&mut self, _: Vec<Committed>) -> Result<(), MachineError> {
            Ok(())
        }

        fn takes_at_once(&self) -> bool {
            true
        }

        fn database(&self) -> String {
            "state".to_owned()
        }

        fn clock_ms(&self) -> u64 {
            0
        }

        fn flush(&mut self) -> Result<(), MachineError> {
            Ok(())
        }

        fn flushed(&self) -> Option<u64> {
            None
        }

        fn checkpoint(&mut self, _: &str) -> Result<(), MachineError> {
            Err(MachineError("it has nothing".to_owned()))
        }

        fn install(&mut self, _: &str) -> Result<(), MachineError> {
            Err(MachineError("it takes nothing".to_owned()))
        }
    }

    /// The only server of its cluster, which leads.
    async fn alone(folder: &tempfile::TempDir) -> Node {
        let peer = Peer {
            id: 1,
            name: "server-1".to_owned(),
            address: "server-1:6443".to_owned(),
        };
        let seams = Seams {
            directory: Arc::new(FileDirectory::open(folder.path()).unwrap()),
            network: MemoryHub::default().plug(&peer.name),
            clock: Arc::new(SystemClock),
            runtime: Arc::new(ThreadRuntime),
            entropy: Arc::new(SystemEntropy),
            strand: Strand::new(),
        };
        let mut config = NodeConfig::new(peer.id, "test");
        config.bootstrap = Some(vec![peer]);
        let node = Node::start(config, seams, Box::new(Forgetful))
            .await
            .unwrap();
        let applied = |status: &Status| status.leads() && status.applied.is_some();
        node.watch().wait_for(applied).await.unwrap();
        node
    }

    /// Raft ends while it is asked for something: what was published last does not say so.
    async fn check_end_is_told(asks_for: &str, snapshot: fn(Option<LogId>) -> Option<LogId>) {
        let folder = tempfile::tempdir().unwrap();
        let node = alone(&folder).await;
        let inner = node.inner();
        let mut metrics = inner.raft.metrics().borrow_watched().clone();
        metrics.snapshot = snapshot(metrics.last_applied);
        let (tell, told) = Types::watch_channel(metrics.clone());
        let (_nothing, never) = watch::channel(None);
        let (publish, status) = watch::channel(Status::of(1));
        let publisher = Publisher {
            raft: inner.raft.clone(),
            metrics: told,
            failed: never.clone(),
            unwritten: never.clone(),
            refused: never,
            log: inner.log.clone(),
            publish,
            snapshot_log_bytes: 0,
            asked: None,
            keep: Keep {
                entries: 0,
                bytes: 0,
            },
            cut: None,
            membership: None,
        };
        let mut running = pin!(publisher.run());
        poll_fn(|context| {
            // tokio lets a task that has done much wait for its next turn, in the middle of asking too.
            while pin!(consume_budget()).poll(context).is_ready() {}
            assert!(running.as_mut().poll(context).is_pending(), "{asks_for}");
            Poll::Ready(())
        })
        .await;
        assert!(status.borrow().leads() && status.borrow().failed.is_none());
        inner.raft.shutdown().await.unwrap();
        metrics.state = openraft::ServerState::Shutdown;
        metrics.running_state = Err(Fatal::Panicked);
        tell.send(metrics).unwrap();
        running.await;
        let failed = status.borrow().failed.clone();
        assert_eq!(
            failed,
            Some(Fatal::<Types>::Panicked.to_string()),
            "{asks_for}"
        );
    }

    #[tokio::test]
    async fn that_raft_has_ended_is_told_where_it_is_found_in_asking_for_something() {
        check_end_is_told("a snapshot", |_| None).await;
        check_end_is_told("the log to be cut off", |applied| applied).await;
    }
}
