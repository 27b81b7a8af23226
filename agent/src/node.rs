//! The Node object and status of the machine that the agent runs on: capacity, addresses, conditions, versions; from /proc, /etc and the
//! file system.
//!
//! Labels, taints and `unschedulable` that others set are theirs: the server merges what comes from here.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use serde_json::{Value, json};

use crate::{Timestamp, rfc3339};

/// Below this much free memory or disk the node is under pressure (the kubelet's default hard evictions: 100 MiB, 10 %).
const LOW_MEMORY: u64 = 100 << 20;
const LOW_DISK_PERCENT: u64 = 10;
/// Pids that are kept back.
const LOW_PIDS: u64 = 1_000;

/// What of a node does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Machine {
    pub name: String,
    pub ip: String,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub disk_bytes: u64,
    pub pods: u32,
    pub pod_cidr: String,
    pub runtime_version: String,
    pub labels: Vec<(String, String)>,
}

/// Whether the container runtime answers, and if not, what is wrong.
pub type Health = Result<(), String>;

impl Machine {
    /// Looks at the machine. `data_dir` is where containers are kept.
    pub fn look(name: &str, data_dir: &Path, node_ip: Option<IpAddr>, pods: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
        Machine {
            name: name.to_owned(),
            ip: node_ip.unwrap_or_else(own_address).to_string(),
            cpu_milli: cpus as i64 * 1000,
            memory_bytes: meminfo("MemTotal:").unwrap_or(0) as i64,
            disk_bytes: disk(data_dir).map_or(0, |(total, _)| total),
            pods,
            pod_cidr: String::new(),
            runtime_version: String::new(),
            labels: Vec::new(),
        }
    }

    /// The whole object, as Hello carries it.
    pub fn object(&self, status: &Value) -> Value {
        let mut labels = json!({
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
        });
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {},
            "status": status,
        });
        if !self.pod_cidr.is_empty() {
            object["spec"] = json!({"podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr]});
        }
        object
    }

    /// The status now. `before` is the one before: a condition that holds keeps its time.
    pub fn status(
        &self,
        data_dir: &Path,
        health: &Health,
        now: Timestamp,
        before: &Value,
    ) -> Value {
        let capacity = json!({
            "cpu": cpu(self.cpu_milli),
            "memory": format!("{}Ki", self.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", self.disk_bytes / 1024),
            "pods": self.pods.to_string(),
        });
        // What is kept back for evictions is not to be had by pods.
        let mut allocatable = capacity.clone();
        allocatable["memory"] = json!(format!(
            "{}Ki",
            (self.memory_bytes - LOW_MEMORY as i64).max(0) / 1024
        ));
        allocatable["ephemeral-storage"] =
            json!((self.disk_bytes / 100 * (100 - LOW_DISK_PERCENT)).to_string());
        json!({
            "capacity": capacity,
            "allocatable": allocatable,
            "conditions": conditions(data_dir, health, now, before),
            "addresses": [
                {"type": "InternalIP", "address": self.ip},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": line("/etc/machine-id"),
                "systemUUID": line("/sys/class/dmi/id/product_uuid"),
                "bootID": line("/proc/sys/kernel/random/boot_id"),
                "kernelVersion": line("/proc/sys/kernel/osrelease"),
                "osImage": os_image(),
                "containerRuntimeVersion": self.runtime_version,
                "kubeletVersion": concat!("v1.37.0-reckon-", env!("CARGO_PKG_VERSION")),
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture(),
            },
        })
    }
}

fn conditions(data_dir: &Path, health: &Health, now: Timestamp, before: &Value) -> Vec<Value> {
    let memory = meminfo("MemAvailable:").is_some_and(|free| free < LOW_MEMORY);
    let disk = disk(data_dir).is_some_and(|(total, free)| free < total / 100 * LOW_DISK_PERCENT);
    let pids = free_pids().is_some_and(|free| free < LOW_PIDS);
    let one = |kind: &str, holds: bool, reason: &str, message: &str| {
        let truth = if holds { "True" } else { "False" };
        let previous = before["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|held| held["type"] == kind);
        let since = previous
            .filter(|held| held["status"] == truth)
            .and_then(|held| held["lastTransitionTime"].as_str())
            .map_or_else(|| rfc3339(now), str::to_owned);
        json!({"type": kind, "status": truth, "reason": reason, "message": message,
            "lastHeartbeatTime": rfc3339(now), "lastTransitionTime": since})
    };
    let pressure = |kind: &str, holds: bool, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if holds { bad } else { good };
        one(kind, holds, reason, message)
    };
    vec![
        pressure(
            "MemoryPressure",
            memory,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pids,
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
            (
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ),
        match health {
            Ok(()) => one(
                "Ready",
                true,
                "KubeletReady",
                "kubelet is posting ready status",
            ),
            Err(message) => one("Ready", false, "KubeletNotReady", message),
        },
    ]
}

/// The status without the times that pass by themselves: it differs when there is something to report.
pub fn without_heartbeat(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = Value::Null;
    }
    status
}

fn cpu(milli: i64) -> String {
    if milli % 1000 == 0 {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// A field of /proc/meminfo in bytes.
fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Total and free bytes of the file system.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some((
        stat.blocks() * stat.fragment_size(),
        stat.blocks_available() * stat.fragment_size(),
    ))
}

fn free_pids() -> Option<u64> {
    let most: u64 = line("/proc/sys/kernel/pid_max").parse().ok()?;
    // The fourth field of loadavg: runnable/all tasks.
    let tasks: u64 = line("/proc/loadavg")
        .split_whitespace()
        .nth(3)?
        .split_once('/')?
        .1
        .parse()
        .ok()?;
    Some(most.saturating_sub(tasks))
}

/// The address that this machine has towards others; nothing is sent.
fn own_address() -> IpAddr {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    // TEST-NET-1 (RFC 5737): routed as any other, answered by nobody.
    UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| {
            socket.connect(SocketAddr::from(([192, 0, 2, 1], 9)))?;
            socket.local_addr()
        })
        .map_or(loopback, |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_describes_its_machine() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::look("n1", dir.path(), None, 110);
        let early = Timestamp::UNIX_EPOCH;
        let status = machine.status(dir.path(), &Ok(()), early, &Value::Null);
        assert!(
            machine.memory_bytes > 0 && machine.cpu_milli >= 1000 && machine.disk_bytes > 0,
            "{machine:?}"
        );
        let ready = |status: &Value| {
            let ready = status["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .find(|held| held["type"] == "Ready")
                .unwrap()
                .clone();
            (
                ready["status"].as_str().unwrap().to_owned(),
                ready["lastTransitionTime"].as_str().unwrap().to_owned(),
            )
        };
        assert_eq!(
            ready(&status),
            ("True".into(), "1970-01-01T00:00:00Z".into())
        );
        let later = early + chrono::TimeDelta::seconds(60);
        let same = machine.status(dir.path(), &Ok(()), later, &status);
        assert_eq!(ready(&same).1, "1970-01-01T00:00:00Z");
        assert_eq!(without_heartbeat(&same), without_heartbeat(&status));
        let broken = machine.status(dir.path(), &Err("no runtime".into()), later, &status);
        assert_eq!(
            ready(&broken),
            ("False".into(), "1970-01-01T00:01:00Z".into())
        );
        assert_eq!(
            machine.object(&status)["metadata"]["labels"]["kubernetes.io/hostname"],
            "n1"
        );
    }
}
