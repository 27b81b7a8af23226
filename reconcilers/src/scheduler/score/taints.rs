//! Prefers the node with fewest PreferNoSchedule taints that the pod does not tolerate.

use crate::scheduler::filter::preferred_against;
use crate::world::{Node, Pod};

pub fn against(node: &Node, pod: &Pod) -> i64 {
    preferred_against(node, pod)
}

pub fn normalised(against: i64, most: i64) -> i64 {
    if most == 0 {
        100
    } else {
        100 - 100 * against / most
    }
}
