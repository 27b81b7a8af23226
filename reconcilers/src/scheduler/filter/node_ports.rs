//! Host ports: a node has each only once.

use crate::scheduler::candidates::Candidate;
use crate::world::Pod;

pub const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

pub fn ports_taken(candidate: &Candidate, pod: &Pod) -> bool {
    pod.host_ports
        .iter()
        .any(|port| candidate.used.ports.conflicts(port))
}
