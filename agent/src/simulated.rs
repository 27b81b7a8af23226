//! Simulated nodes: each registers, holds a session and reports its bound pods as running, by the same protocol and the same session
//! code as an agent with containers, but runs nothing. For scale, for demonstrations, and inside the deterministic simulation: so time is
//! tokio's, the wall clock and the seed are arguments.
//!
//! A node costs two tasks and some kilobytes. It never touches the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::dial::Dialer;
use crate::jitter::Jitter;
use crate::link::{self, LinkConfig};
use crate::outbox::Outbox;
use crate::proto;
use crate::session::{Command, Seen};
use crate::{Timestamp, WallClock, rfc3339};

/// Commands that wait for a simulated node. Past it its link, and so its server, waits.
const COMMAND_QUEUE: usize = 32;
/// Simulated nodes have addresses in 100.64.0.0/10 (RFC 6598), a /24 each.
const MOST_NODES: u32 = 1 << 14;

#[derive(Debug, Clone)]
pub struct SimulatedConfig {
    pub count: u32,
    /// Node n is called `<prefix>-<n>`, from 1.
    pub prefix: String,
    /// URLs, tried in turn.
    pub servers: Vec<String>,
    /// From a pod's arrival to its containers running.
    pub start_delay: Duration,
    /// From a deletion to the pod being gone, at most its grace period.
    pub stop_delay: Duration,
    pub cpu: String,
    pub memory: String,
    pub pods: u32,
    pub seed: u64,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        SimulatedConfig {
            count: 1,
            prefix: "simulated".to_owned(),
            servers: Vec::new(),
            start_delay: Duration::from_millis(500),
            stop_delay: Duration::from_millis(500),
            cpu: "32".to_owned(),
            memory: "128Gi".to_owned(),
            pods: 110,
            seed: 0,
        }
    }
}

/// Runs all the nodes until the future is dropped. A node that is dropped comes back with nothing, as one whose machine was lost.
pub async fn run_simulated(
    config: SimulatedConfig,
    dialer: Arc<dyn Dialer>,
    wall_clock: WallClock,
) {
    assert!(
        config.count <= MOST_NODES,
        "simulated nodes have addresses for {MOST_NODES} nodes, not {}",
        config.count
    );
    let mut nodes = tokio::task::JoinSet::new();
    for index in 1..=config.count {
        nodes.spawn(run_simulated_node(
            config.clone(),
            index,
            dialer.clone(),
            wall_clock.clone(),
        ));
    }
    while nodes.join_next().await.is_some() {}
}

/// One node, number `index` from 1, until the future is dropped.
pub async fn run_simulated_node(
    config: SimulatedConfig,
    index: u32,
    dialer: Arc<dyn Dialer>,
    wall_clock: WallClock,
) {
    let name = format!("{}-{index}", config.prefix);
    let (commands, received) = mpsc::channel(COMMAND_QUEUE);
    // Nothing is ever streamed from a simulated node: opened streams are answered at once through this.
    let (streams, outgoing) = mpsc::channel(link::STREAM_QUEUE);
    let outbox = Outbox::default();
    let node = Arc::new(node_object(&config, index, &name));
    let described = {
        let (node, wall_clock) = (node.clone(), wall_clock.clone());
        Arc::new(move || with_conditions(&node, wall_clock()))
    };
    let link = link::keep(
        LinkConfig {
            node_name: name.clone(),
            simulated: true,
            servers: config.servers.clone(),
            seen: Seen::default(),
            jitter: Jitter::of(config.seed, &name),
        },
        dialer,
        outbox.clone(),
        commands,
        outgoing,
        described,
        Arc::new(|_| {}),
    );
    let node = SimulatedNode {
        host_ip: address(index, 1).to_string(),
        index,
        outbox,
        wall_clock,
        streams,
        pods: BTreeMap::new(),
        due: BTreeSet::new(),
        last_address: 1,
        config,
    };
    tokio::select! {
        () = link => {}
        () = node.run(received) => {}
    }
}

/// 100.64.0.0/10: the node's /24, and the host in it.
fn address(index: u32, host: u32) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(Ipv4Addr::new(100, 64, 0, 0))) + ((index % MOST_NODES) << 8) + host)
}

fn node_object(config: &SimulatedConfig, index: u32, name: &str) -> Value {
    let resources = json!({
        "cpu": config.cpu, "memory": config.memory, "ephemeral-storage": "100Gi", "pods": config.pods.to_string(),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "reckon.dev/simulated": "true",
            },
        },
        "spec": {"podCIDR": format!("{}/24", address(index, 0)), "podCIDRs": [format!("{}/24", address(index, 0))]},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": address(index, 1).to_string()},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "simulated",
                "osImage": "simulated", "containerRuntimeVersion": "simulated://1",
                "kubeletVersion": concat!("v1.37.0-reckon-", env!("CARGO_PKG_VERSION")),
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        },
    })
}

fn with_conditions(node: &Value, now: Timestamp) -> Value {
    let now = rfc3339(now);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let mut node = node.clone();
    node["status"]["conditions"] = json!([
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "simulated"
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "simulated"
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "simulated"
        ),
        condition("Ready", "True", "KubeletReady", "simulated"),
    ]);
    node
}

struct SimulatedNode {
    config: SimulatedConfig,
    index: u32,
    host_ip: String,
    outbox: Outbox,
    wall_clock: WallClock,
    streams: mpsc::Sender<proto::StreamData>,
    pods: BTreeMap<String, SimulatedPod>,
    /// When to look at which pod again.
    due: BTreeSet<(Instant, String)>,
    last_address: u32,
}

struct SimulatedPod {
    object: Value,
    revision: u64,
    ip: String,
    arrived: Timestamp,
    started: Option<Timestamp>,
    gone: bool,
}

impl SimulatedNode {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let next = self.due.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some((_, uid)) = self.due.pop_first() {
                        self.proceed(&uid);
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign { pod, revision } => self.assign(pod, revision),
            Command::Remove { uid, .. } => self.forget(&uid),
            Command::Complete { uids } => {
                let unnamed: Vec<String> = self
                    .pods
                    .keys()
                    .filter(|uid| !uids.contains(*uid))
                    .cloned()
                    .collect();
                for uid in unnamed {
                    self.forget(&uid);
                }
                self.outbox.keep_only(&uids);
            }
            Command::Stream(crate::session::StreamCommand::Open { id, .. }) => {
                // When the queue is full the server's deadline answers for us.
                let _ = self.streams.try_send(proto::StreamData {
                    id,
                    end: true,
                    error: Some("a simulated node keeps no logs".to_owned()),
                    error_code: 501,
                    ..Default::default()
                });
            }
            Command::Welcomed { .. }
            | Command::Object { .. }
            | Command::Stream(_)
            | Command::StatusRejected { .. } => {}
        }
    }

    fn assign(&mut self, object: Value, revision: u64) {
        let Some(uid) = object["metadata"]["uid"].as_str().map(str::to_owned) else {
            return;
        };
        let deleted = !object["metadata"]["deletionTimestamp"].is_null();
        let grace = object["metadata"]["deletionGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(0);
        let fresh = !self.pods.contains_key(&uid);
        let (now, wall) = (Instant::now(), (self.wall_clock)());
        if fresh {
            let ip = self.address_for(&object);
            let status = &object["status"];
            // A node that came back: what it had reported running still is.
            let started = (status["phase"] == "Running").then_some(wall);
            let pod = SimulatedPod {
                object,
                revision,
                ip,
                arrived: wall,
                started,
                gone: false,
            };
            self.pods.insert(uid.clone(), pod);
            self.due
                .insert((now + self.config.start_delay, uid.clone()));
            self.report(&uid);
        } else if let Some(pod) = self.pods.get_mut(&uid) {
            pod.object = object;
            pod.revision = revision;
        }
        if deleted {
            let wait = self.config.stop_delay.min(Duration::from_secs(grace));
            self.due.insert((now + wait, uid));
        }
    }

    fn address_for(&mut self, object: &Value) -> String {
        if object["spec"]["hostNetwork"] == true {
            return self.host_ip.clone();
        }
        if let Some(had) = object["status"]["podIP"].as_str() {
            return had.to_owned();
        }
        let used: BTreeSet<&str> = self.pods.values().map(|pod| pod.ip.as_str()).collect();
        // 253 addresses, and at most `config.pods` pods in the scheduler's eyes: past all of them one is shared.
        for _ in 0..253 {
            self.last_address = if self.last_address >= 254 {
                2
            } else {
                self.last_address + 1
            };
            let candidate = address(self.index, self.last_address).to_string();
            if !used.contains(candidate.as_str()) {
                return candidate;
            }
        }
        address(self.index, self.last_address).to_string()
    }

    fn proceed(&mut self, uid: &str) {
        let now = (self.wall_clock)();
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        if pod.gone {
            return;
        }
        if !pod.object["metadata"]["deletionTimestamp"].is_null() {
            pod.gone = true;
            let (namespace, name) = names(&pod.object);
            self.outbox.pod_gone(proto::PodGone {
                namespace,
                name,
                uid: uid.to_owned(),
                status: Vec::new(),
            });
        } else if pod.started.is_none() {
            pod.started = Some(now);
            self.report(uid);
        }
    }

    fn report(&self, uid: &str) {
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        let (namespace, name) = names(&pod.object);
        self.outbox.pod_status(proto::PodStatus {
            namespace,
            name,
            uid: uid.to_owned(),
            status: status(pod, &self.host_ip).to_string().into_bytes(),
            base_revision: pod.revision,
        });
    }

    fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.due.retain(|(_, other)| other != uid);
        self.outbox.forget(uid);
    }
}

fn names(object: &Value) -> (String, String) {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

/// The status of a pod that has not started, or runs and is ready. Init containers count as completed.
fn status(pod: &SimulatedPod, host_ip: &str) -> Value {
    let mut status = match &pod.object["status"] {
        Value::Object(held) => Value::Object(held.clone()),
        _ => json!({}),
    };
    let start = rfc3339(pod.arrived);
    status["hostIP"] = json!(host_ip);
    status["hostIPs"] = json!([{"ip": host_ip}]);
    if status["startTime"].is_null() {
        status["startTime"] = json!(start);
    }
    let changed = rfc3339(pod.started.unwrap_or(pod.arrived));
    let running = pod.started.is_some();
    let (truth, reason) = if running {
        ("True", Value::Null)
    } else {
        ("False", json!("ContainersNotReady"))
    };
    let condition = |kind: &str, status: &str, reason: &Value| {
        let mut condition = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": changed});
        if !reason.is_null() {
            condition["reason"] = reason.clone();
        }
        condition
    };
    let mut conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|held| {
            ![
                "PodReadyToStartContainers",
                "Initialized",
                "ContainersReady",
                "Ready",
            ]
            .contains(&held["type"].as_str().unwrap_or_default())
        })
        .cloned()
        .collect();
    conditions.push(condition("PodReadyToStartContainers", truth, &Value::Null));
    conditions.push(condition("Initialized", "True", &Value::Null));
    conditions.push(condition("ContainersReady", truth, &reason));
    conditions.push(condition("Ready", truth, &reason));
    status["conditions"] = Value::Array(conditions);
    status["phase"] = json!(if running { "Running" } else { "Pending" });
    if running {
        status["podIP"] = json!(pod.ip);
        status["podIPs"] = json!([{"ip": pod.ip}]);
    }
    status["containerStatuses"] = containers(pod, "containers", &changed);
    if !pod.object["spec"]["initContainers"].is_null() {
        status["initContainerStatuses"] = containers(pod, "initContainers", &changed);
    }
    status
}

fn containers(pod: &SimulatedPod, field: &str, at: &str) -> Value {
    let uid = pod.object["metadata"]["uid"].as_str().unwrap_or_default();
    let specs = pod.object["spec"][field].as_array().into_iter().flatten();
    let one = |spec: &Value| {
        let (name, image) = (
            spec["name"].as_str().unwrap_or_default(),
            spec["image"].as_str().unwrap_or_default(),
        );
        let running = pod.started.is_some();
        let once = field == "initContainers" && spec["restartPolicy"] != "Always";
        let id = format!("simulated://{uid}/{name}");
        let state = if !running {
            json!({"waiting": {"reason": "ContainerCreating"}})
        } else if once {
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at, "containerID": id}})
        } else {
            json!({"running": {"startedAt": at}})
        };
        let mut status = json!({
            "name": name, "image": image, "imageID": if running { image } else { "" }, "state": state,
            "lastState": {}, "ready": running, "restartCount": 0, "started": running && !once,
        });
        if running {
            status["containerID"] = json!(id);
        }
        status
    };
    specs.map(one).collect()
}

#[cfg(test)]
#[path = "simulated_tests.rs"]
mod tests;
