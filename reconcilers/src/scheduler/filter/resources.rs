//! Resources: what the pods of a node ask for must not be more than it offers, of any resource; the number of pods is one.

use crate::scheduler::candidates::Candidate;
use crate::world::Pod;
use eventstore::Text;

/// The resources that the pod asks for and the node has not left.
pub fn lacking<'a>(candidate: &'a Candidate, pod: &'a Pod) -> impl Iterator<Item = &'a Text> + 'a {
    let node = candidate.node();
    let wanting = pod.requests.0.iter().filter(move |(name, amount)| {
        candidate.used.requested.get(name).saturating_add(**amount) > node.allocatable.get(name)
    });
    wanting.map(|(name, _)| name)
}

pub fn reason(name: &str) -> String {
    if name == "pods" {
        "Too many pods".to_owned()
    } else {
        format!("Insufficient {name}")
    }
}
