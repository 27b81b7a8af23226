//! Which of the nodes that fit is best: each score is 0 to 100, and counts as often as its weight says. Weights as in Kubernetes.

mod least_allocated;
mod node_affinity;
mod spread;
mod taints;

use super::candidates::Candidate;
use crate::world::{Pod, Thing};

/// What a template prefers: its node affinity's weights, and taints that would rather not have it. Not yet brought to 0..100, which
/// takes all nodes that fit.
pub fn by_template(candidate: &Candidate, pod: &Pod) -> i64 {
    // Both in one number: preferences above, taints below. Neither comes near 2^20: a term weighs at most 100.
    (node_affinity::score(&candidate.thing, pod) << 20)
        | taints::against(candidate.node(), pod).min((1 << 20) - 1)
}

/// The index of the best node of `fitting`, which pairs indices with what `by_template` said.
pub fn best(
    nodes: &[Candidate],
    fitting: &[(usize, i64)],
    thing: &Thing,
    pod: &Pod,
) -> Option<usize> {
    let owner = thing.meta.controller().map(|owner| owner.uid);
    let most_preferred = fitting
        .iter()
        .map(|(_, preference)| preference >> 20)
        .max()?;
    let most_against = fitting
        .iter()
        .map(|(_, preference)| preference & 0xF_FFFF)
        .max()?;
    let crowds: Vec<i64> = fitting
        .iter()
        .map(|(index, _)| spread::crowd(&nodes[*index], owner))
        .collect();
    let largest_crowd = crowds.iter().copied().max()?;
    let scored = fitting
        .iter()
        .zip(&crowds)
        .map(|((index, preference), crowd)| {
            let node = &nodes[*index];
            let score = least_allocated::score(node, pod)
                + 2 * spread::score(*crowd, largest_crowd)
                + 2 * node_affinity::normalised(preference >> 20, most_preferred)
                + 3 * taints::normalised(preference & 0xF_FFFF, most_against);
            (score, node.tie_break(thing), *index)
        });
    scored.max().map(|(_, _, index)| index)
}
