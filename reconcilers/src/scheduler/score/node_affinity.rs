//! Preferred node affinity: the sum of the weights of the terms that hold.

use crate::scheduler::filter::term_holds;
use crate::world::{Pod, Thing};

pub fn score(node: &Thing, pod: &Pod) -> i64 {
    pod.preferred_terms
        .iter()
        .filter(|term| term_holds(&term.preference, node))
        .map(|term| term.weight.clamp(0, 100))
        .sum()
}

pub fn normalised(preference: i64, most: i64) -> i64 {
    if most == 0 {
        0
    } else {
        100 * preference / most
    }
}
