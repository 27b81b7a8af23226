//! What rules a node out, with Kubernetes' words for it. A filter is a small file of its own; their order is Kubernetes', for the first
//! one that rules a node out gives the reason that counts.

mod node_affinity;
mod node_ports;
mod resources;
mod taints;
mod unschedulable;

use super::candidates::Candidate;
use crate::world::Pod;
use std::collections::BTreeMap;

pub use node_affinity::term_holds;
pub use node_ports::ports_taken;
pub use resources::lacking;
pub use taints::{preferred_against, tolerates};

/// What the filters that read only the pod's template and the node say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    Out(String),
    /// How much the template prefers the node.
    In {
        preference: i64,
    },
}

pub fn by_template(candidate: &Candidate, pod: &Pod) -> Filtered {
    let node = candidate.node();
    let reason = unschedulable::filter(node, pod)
        .or_else(|| taints::filter(node, pod))
        .or_else(|| node_affinity::filter(&candidate.thing, pod));
    match reason {
        Some(reason) => Filtered::Out(reason),
        None => Filtered::In {
            preference: super::score::by_template(candidate, pod),
        },
    }
}

/// Why a node that the template allows does not take the pod now: every resource that is lacking, or its ports.
pub fn explain(candidate: &Candidate, pod: &Pod, reasons: &mut BTreeMap<String, usize>) {
    if ports_taken(candidate, pod) {
        *reasons.entry(node_ports::REASON.to_owned()).or_insert(0) += 1;
        return;
    }
    for name in lacking(candidate, pod) {
        *reasons.entry(resources::reason(name)).or_insert(0) += 1;
    }
}
