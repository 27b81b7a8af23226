//! Puts an agent together and runs it: containerd, network and images, then the session, a worker for each pod, and the rounds that notice
//! what changes by itself. On the way out, what `StopMode` says.

mod node_loop;
mod rounds;
mod stop;

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::WallClock;
use crate::cni::{self, Names, Network};
use crate::containerd::{self, Containerd, ContainerdError};
use crate::dial::Dialer;
use crate::images::{self, ImageError, Importer};
use crate::jitter::Jitter;
use crate::link::{self, LinkConfig};
use crate::node::{Health, Machine};
use crate::objects::Objects;
use crate::outbox::Outbox;
use crate::runtime::configs::NodeFacts;
use crate::runtime::cri::CriRuntime;
use crate::runtime::{ContainerRuntime, RuntimeError};
use crate::session::Seen;
use crate::worker::NodeContext;
use node_loop::NodeLoop;

/// Commands that wait for the agent: a snapshot of a full node with its objects. Past it its link, and so its server, waits.
const COMMAND_QUEUE: usize = 1024;

/// Everything that an agent is told at its start.
#[derive(Clone)]
pub struct AgentConfig {
    /// The node's name, as in its certificate.
    pub node_name: String,
    /// What tells this cluster from others on the machine: names in the kernel derive from it.
    pub cluster: String,
    /// Everything the agent keeps is below it.
    pub data_dir: PathBuf,
    /// Archives in it are imported.
    pub images_dir: PathBuf,
    /// Tried in turn: `https://127.0.0.1:6443`.
    pub servers: Vec<String>,
    /// The node's InternalIP; `None`: the machine's own towards others.
    pub node_ip: Option<IpAddr>,
    /// Most pods.
    pub pods: u32,
    /// Labels for the node beside the usual ones.
    pub labels: Vec<(String, String)>,
    /// Spreads waits; any number.
    pub seed: u64,
    pub wall_clock: WallClock,
    /// With `StopMode::RemoveAll`: the most that a pod's processes get between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

impl AgentConfig {
    /// With the usual values for the rest.
    pub fn new(
        node_name: &str,
        cluster: &str,
        data_dir: PathBuf,
        servers: Vec<String>,
        wall_clock: WallClock,
    ) -> Self {
        AgentConfig {
            node_name: node_name.to_owned(),
            cluster: cluster.to_owned(),
            images_dir: data_dir.join("images"),
            data_dir,
            servers,
            node_ip: None,
            pods: 110,
            labels: Vec::new(),
            seed: u64::from(std::process::id()),
            wall_clock,
            stop_grace: Duration::from_secs(10),
        }
    }
}

/// What becomes of the pods when the agent stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// They run on, and the next agent adopts them.
    LeavePods,
    /// Nothing is left running, and no bridge, rule or mount; images and logs of containerd stay on disk.
    RemoveAll,
}

#[derive(Debug, Error)]
pub enum AgentError {
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{0} is in use by another agent")]
    InUse(PathBuf),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Whether this machine has what containers need; says which Debian package is missing. Starts nothing.
pub fn preflight() -> Result<(), AgentError> {
    containerd::find_installed()?;
    images::static_busybox().ok_or(ImageError::NoBusybox)?;
    Ok(())
}

/// Runs until `shutdown` says how to stop. Fails before anything is started where something is missing.
pub async fn run(
    config: AgentConfig,
    dialer: Arc<dyn Dialer>,
    shutdown: impl Future<Output = StopMode> + Send,
) -> Result<(), AgentError> {
    let installed = containerd::find_installed()?;
    let agent = Agent::prepare(config, installed).await?;
    agent.run(dialer, shutdown).await
}

struct Agent {
    config: AgentConfig,
    /// Held while the agent runs.
    _lock: fs::File,
    names: Names,
    network: Network,
    containerd: Arc<Containerd>,
    context: Arc<NodeContext>,
    machine: Machine,
}

impl Agent {
    /// Brings up what the node stands on.
    async fn prepare(
        mut config: AgentConfig,
        installed: containerd::Installed,
    ) -> Result<Self, AgentError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| AgentError::Io { path, error }
        };
        for dir in [&config.data_dir, &config.images_dir] {
            fs::create_dir_all(dir).map_err(io(dir))?;
        }
        // Absolute: containerd and CNI run elsewhere.
        config.data_dir = config
            .data_dir
            .canonicalize()
            .map_err(io(&config.data_dir))?;
        config.images_dir = config
            .images_dir
            .canonicalize()
            .map_err(io(&config.images_dir))?;
        let data = config.data_dir.clone();
        let lock_path = data.join("agent.lock");
        let lock = fs::File::create(&lock_path).map_err(io(&lock_path))?;
        lock.try_lock()
            .map_err(|_| AgentError::InUse(data.clone()))?;
        let pause = data.join("pause.tar");
        if !pause.exists() {
            images::build_pause(&pause)?;
        }
        let names = Names::derive(&config.cluster, &config.node_name);
        let cni_dir = data.join("cni");
        let network = cni::configure(&names, &cni_dir).map_err(io(&cni_dir))?;
        let containerd = Containerd::start(
            installed,
            &data.join("containerd"),
            &names.id(),
            &network.config_dir,
            images::PAUSE_IMAGE,
        )
        .await?;
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(CriRuntime::new(&containerd.socket()));
        let record = data.join("containerd").join("imported.json");
        let mut importer = Importer::new(
            config.images_dir.clone(),
            containerd.ctr().to_owned(),
            containerd.socket(),
            containerd.snapshotter(),
            record,
        );
        if runtime.image(images::PAUSE_IMAGE).await?.is_none() {
            importer.import(&pause).await?;
        }
        importer.scan().await;
        let machine = Self::machine(&config, &network, runtime.version().await?);
        let context = Arc::new(NodeContext {
            runtime,
            archives: tokio::sync::Mutex::new(importer),
            outbox: Outbox::default(),
            objects: Objects::default(),
            facts: NodeFacts {
                cgroup_parent: names.cgroup_parent(),
                memory_bytes: machine.memory_bytes,
                resolv_conf: fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            },
            host_ip: machine.ip.clone(),
            allocatable_cpu_milli: machine.cpu_milli,
            allocatable_memory: machine.memory_bytes,
            pods_dir: data.join("pods"),
            logs_dir: data.join("logs"),
            wall_clock: config.wall_clock.clone(),
            views: Mutex::default(),
        });
        Ok(Agent {
            config,
            _lock: lock,
            names,
            network,
            containerd: Arc::new(containerd),
            context,
            machine,
        })
    }

    fn machine(config: &AgentConfig, network: &Network, runtime_version: String) -> Machine {
        let mut machine = Machine::look(
            &config.node_name,
            &config.data_dir,
            config.node_ip,
            config.pods,
        );
        machine.pod_cidr = network.subnet.clone();
        machine.runtime_version = runtime_version;
        machine.labels = config.labels.clone();
        machine
    }

    async fn run(
        self,
        dialer: Arc<dyn Dialer>,
        shutdown: impl Future<Output = StopMode> + Send,
    ) -> Result<(), AgentError> {
        let health: Arc<Mutex<Health>> = Arc::new(Mutex::new(Ok(())));
        let (commands, received) = mpsc::channel(COMMAND_QUEUE);
        let (streams, outgoing) = mpsc::channel(link::STREAM_QUEUE);
        let status = Arc::new(Mutex::new(Value::Null));
        let mut tasks = JoinSet::new();
        tasks.spawn(link::keep(
            LinkConfig {
                node_name: self.config.node_name.clone(),
                simulated: false,
                servers: self.config.servers.clone(),
                seen: recall(&self.config.data_dir),
                jitter: Jitter::of(self.config.seed, &self.config.node_name),
            },
            dialer,
            self.context.outbox.clone(),
            commands,
            outgoing,
            self.describe(&health, &status),
            self.remember(),
        ));
        tasks.spawn(rounds::import(self.context.clone()));
        tasks.spawn(rounds::rotate_logs(self.context.clone()));
        let mut node = NodeLoop::new(
            self.context.clone(),
            self.machine.clone(),
            self.config.data_dir.clone(),
            health,
            status,
            streams,
        );
        let (listed, looks) = mpsc::channel(1);
        tasks.spawn(rounds::list(
            self.context.clone(),
            self.containerd.clone(),
            listed,
        ));
        let mode = tokio::select! {
            mode = shutdown => mode,
            () = node.run(received, looks) => StopMode::LeavePods,
        };
        // From here on nothing is reported: what the servers know of the pods stays as it was.
        tasks.shutdown().await;
        if mode == StopMode::RemoveAll {
            let pods = node.halt(self.config.stop_grace).await;
            stop::remove_all(
                &self.context,
                &self.containerd,
                &self.network,
                &self.names,
                &self.config.data_dir,
                pods,
            )
            .await?;
        }
        Ok(())
    }

    fn describe(
        &self,
        health: &Arc<Mutex<Health>>,
        status: &Arc<Mutex<Value>>,
    ) -> link::DescribeNode {
        let (machine, dir) = (self.machine.clone(), self.config.data_dir.clone());
        let (health, status, clock) = (
            health.clone(),
            status.clone(),
            self.config.wall_clock.clone(),
        );
        Arc::new(move || {
            const MOVES: &str = "no holder of this lock can panic: it only moves values";
            let before = status.lock().expect(MOVES).clone();
            let health = health.lock().expect(MOVES).clone();
            let now = machine.status(&dir, &health, clock(), &before);
            *status.lock().expect(MOVES) = now.clone();
            machine.object(&now)
        })
    }

    fn remember(&self) -> link::Remember {
        let path = self.config.data_dir.join("session.json");
        Arc::new(move |seen| {
            let fresh = path.with_extension("new");
            let written = serde_json::to_vec(seen)
                .map_err(io::Error::other)
                .and_then(|bytes| fs::write(&fresh, bytes))
                .and_then(|()| fs::rename(&fresh, &path));
            if let Err(error) = written {
                tracing::warn!(%error, "what was seen of the session is not remembered");
            }
        })
    }
}

/// What a former run of this agent had seen.
fn recall(data_dir: &Path) -> Seen {
    let bytes = fs::read(data_dir.join("session.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Workers by pod uid.
type Pods = BTreeMap<String, (crate::worker::Handle, tokio::task::JoinHandle<()>)>;
