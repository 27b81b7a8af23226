//! Prefers the node with most cpu and memory left once the pod is there.

use crate::scheduler::candidates::Candidate;
use crate::world::{Pod, weight_of};

pub fn score(candidate: &Candidate, pod: &Pod) -> i64 {
    let (cpu, memory) = weight_of(pod);
    let left = |used: i64, offered: i64| {
        if offered <= 0 {
            0
        } else {
            (offered.saturating_sub(used))
                .clamp(0, offered)
                .saturating_mul(100)
                / offered
        }
    };
    (left(candidate.used.weighed_cpu + cpu, candidate.offered[0])
        + left(candidate.used.weighed_memory + memory, candidate.offered[1]))
        / 2
}
