//! What the pods bound to a node ask of it, kept up pod by pod so that a round never counts them again.

use super::{HostPort, Pod, Resources, Thing};
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// Unfinished pods bound here.
    pub pods: usize,
    pub requested: Resources,
    /// What scoring counts: a pod that asks nothing of cpu or memory counts as `UNSAID`.
    pub weighed_cpu: i64,
    pub weighed_memory: i64,
    pub ports: PortUse,
    /// How many pods of each controller: what spreading looks at.
    pub of_owner: BTreeMap<Uuid, u32>,
}

/// (cpu in thousandths, memory in bytes) that a pod counts for in scoring where it asks for none, so that such pods spread too. As in Kubernetes.
const UNSAID: (i64, i64) = (100, 200 * 1024 * 1024);

/// What a pod counts for in scoring: (cpu in thousandths, memory in bytes).
pub fn weight_of(pod: &Pod) -> (i64, i64) {
    let or = |amount: i64, unsaid: i64| if amount == 0 { unsaid } else { amount };
    (
        or(pod.requests.get("cpu"), UNSAID.0),
        or(pod.requests.get("memory"), UNSAID.1),
    )
}

/// Host ports taken, each with how many pods took it (the API lets a user bind two).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUse(BTreeMap<(String, i64, String), u32>);

impl NodeUse {
    pub fn add(&mut self, thing: &Thing, pod: &Pod) {
        self.pods += 1;
        self.requested.add(&pod.requests);
        let (cpu, memory) = weight_of(pod);
        self.weighed_cpu = self.weighed_cpu.saturating_add(cpu);
        self.weighed_memory = self.weighed_memory.saturating_add(memory);
        for port in &pod.host_ports {
            *self.ports.0.entry(PortUse::key(port)).or_insert(0) += 1;
        }
        if let Some(owner) = thing.meta.controller() {
            *self.of_owner.entry(owner.uid).or_insert(0) += 1;
        }
    }

    pub fn subtract(&mut self, thing: &Thing, pod: &Pod) {
        self.pods -= 1;
        self.requested.subtract(&pod.requests);
        let (cpu, memory) = weight_of(pod);
        self.weighed_cpu = self.weighed_cpu.saturating_sub(cpu);
        self.weighed_memory = self.weighed_memory.saturating_sub(memory);
        for port in &pod.host_ports {
            less(&mut self.ports.0, &PortUse::key(port));
        }
        if let Some(owner) = thing.meta.controller() {
            less(&mut self.of_owner, &owner.uid);
        }
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl PortUse {
    /// Whether a pod that wants this port can't come here: the same port and protocol, on the same address or either on all.
    pub fn conflicts(&self, wanted: &HostPort) -> bool {
        let from = (wanted.protocol.to_string(), wanted.port, String::new());
        let same_port = self.0.range(from..).take_while(|((protocol, port, _), _)| {
            **protocol == *wanted.protocol && *port == wanted.port
        });
        same_port
            .map(|((_, _, ip), _)| ip)
            .any(|ip| **ip == *wanted.ip || ip == "0.0.0.0" || &*wanted.ip == "0.0.0.0")
    }

    fn key(port: &HostPort) -> (String, i64, String) {
        (port.protocol.to_string(), port.port, port.ip.to_string())
    }
}
