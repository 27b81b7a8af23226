//! Servers in one process: real RocksDB in temporary folders, a network in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::{AppendError, Node, NodeConfig, NodeId, Position, StartError, Status};
use seams::{
    Directory, FileDirectory, MemoryHub, Network, Peer, Seams, Strand, SystemClock, SystemEntropy,
    ThreadRuntime,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

pub mod counted;
mod machine;

pub use machine::{Keeper, POINTER, Seen};

/// Nothing in these tests takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(30);

type Between = Box<dyn Fn(Arc<dyn Network>) -> Arc<dyn Network> + Send + Sync>;

pub struct Cluster {
    pub hub: MemoryHub,
    pub folders: BTreeMap<NodeId, TempDir>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub seen: BTreeMap<NodeId, Seen>,
    /// What stands between a server and the others.
    pub between: Between,
    /// What stands between a server and its disk.
    beneath: fn(Arc<dyn Directory>) -> Arc<dyn Directory>,
    configure: fn(&mut NodeConfig),
    /// Of servers that are started from now on ([`Seen::fail_installed`]).
    pub fail_installed: bool,
}

pub fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        name: format!("server-{id}"),
        address: format!("memory:{id}"),
    }
}

impl Cluster {
    /// Servers 1 to `size`, as first members.
    pub async fn start(size: u64, configure: fn(&mut NodeConfig)) -> Self {
        Self::start_between(size, configure, |network| network).await
    }

    pub async fn start_between(
        size: u64,
        configure: fn(&mut NodeConfig),
        between: impl Fn(Arc<dyn Network>) -> Arc<dyn Network> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(size, configure, between, |directory| directory).await
    }

    pub async fn start_on(
        size: u64,
        configure: fn(&mut NodeConfig),
        between: impl Fn(Arc<dyn Network>) -> Arc<dyn Network> + Send + Sync + 'static,
        beneath: fn(Arc<dyn Directory>) -> Arc<dyn Directory>,
    ) -> Self {
        let mut cluster = Self {
            hub: MemoryHub::default(),
            folders: BTreeMap::new(),
            nodes: BTreeMap::new(),
            seen: BTreeMap::new(),
            between: Box::new(between),
            beneath,
            configure,
            fail_installed: false,
        };
        for id in 1..=size {
            cluster
                .run(id, Some((1..=size).map(peer).collect()))
                .await
                .unwrap();
        }
        cluster
    }

    /// Starts a server, anew or again.
    pub async fn run(
        &mut self,
        id: NodeId,
        bootstrap: Option<Vec<Peer>>,
    ) -> Result<(), StartError> {
        self.run_in(id, "test", bootstrap).await
    }

    /// The same, in a cluster of this name.
    pub async fn run_in(
        &mut self,
        id: NodeId,
        name: &str,
        bootstrap: Option<Vec<Peer>>,
    ) -> Result<(), StartError> {
        let folder = self
            .folders
            .entry(id)
            .or_insert_with(|| tempfile::tempdir().unwrap());
        let directory = (self.beneath)(Arc::new(open(folder).await));
        let seen = Seen::default();
        *seen.fail_installed.lock().unwrap() = self.fail_installed;
        let machine = Keeper::open(directory.clone(), seen.clone());
        let seams = Seams {
            directory,
            network: (self.between)(self.hub.plug(&peer(id).name)),
            clock: Arc::new(SystemClock),
            runtime: Arc::new(ThreadRuntime),
            entropy: Arc::new(SystemEntropy),
            strand: Strand::new(),
        };
        let mut config = NodeConfig::new(id, name);
        config.bootstrap = bootstrap;
        (self.configure)(&mut config);
        let node = Node::start(config, seams, Box::new(machine)).await?;
        self.nodes.insert(id, node);
        self.seen.insert(id, seen);
        Ok(())
    }

    /// Ends a server as a kill does: nothing is handed over or flushed.
    pub fn kill(&mut self, id: NodeId) {
        self.hub.unplug(&peer(id).name);
        self.seen.remove(&id);
        self.nodes.remove(&id);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    /// A server that leads, and that a majority of those that run follows.
    pub async fn leader(&self) -> NodeId {
        let found = eventually(async || {
            let statuses: Vec<Status> = self.nodes.values().map(Node::status).collect();
            let leader = statuses
                .iter()
                .filter(|status| status.leads())
                .max_by_key(|status| status.term)?;
            let followed = statuses.iter().filter(|status| {
                status.term == leader.term
                    && status
                        .leader
                        .as_ref()
                        .is_some_and(|peer| peer.id == leader.id)
            });
            (followed.count() * 2 > leader.members.len() && !leader.members.is_empty())
                .then_some(leader.id)
        });
        found.await
    }

    /// Appends at whoever leads, again and again until it is accepted.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Position {
        let payload = payload.into();
        eventually(async || {
            let leader = self.nodes.values().find(|node| node.status().leads())?;
            match timeout(Duration::from_secs(2), leader.append(payload.clone(), None)).await {
                Ok(Ok(position)) => Some(position),
                Ok(Err(
                    AppendError::NotLeader { .. } | AppendError::Unknown | AppendError::Stopped,
                ))
                | Err(_) => None,
                Ok(Err(error)) => panic!("{error}"),
            }
        })
        .await
    }

    /// Waits until all servers that run have applied this.
    pub async fn applied(&self, index: u64) {
        for node in self.nodes.values() {
            let mut applied = node.applied();
            let reached = applied.wait_for(|at| at.is_some_and(|at| at.index >= index));
            timeout(PATIENCE, reached)
                .await
                .unwrap_or_else(|_| panic!("server {}: {:?}", node.id(), node.status()))
                .unwrap();
        }
    }
}

/// A killed server's threads may hold its folder a little longer.
async fn open(folder: &TempDir) -> FileDirectory {
    eventually(async || FileDirectory::open(folder.path()).ok()).await
}

pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "it did not happen in {PATIENCE:?}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}
