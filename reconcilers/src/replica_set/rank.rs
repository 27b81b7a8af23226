//! Which pods go first when there are too many. Source: Kubernetes' ActivePodsWithRanks, KEP-2255 (pod deletion cost).

use super::Held;
use crate::World;
use crate::world::{Kind, PodPhase, Thing, resource};
use eventstore::Text;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What is compared, in this order; the smallest goes first.
type Rank = (
    bool,
    u8,
    bool,
    i64,
    Reverse<usize>,
    Reverse<i64>,
    Reverse<i64>,
    Reverse<i64>,
    Text,
);

pub fn first_to_go<'a>(world: &World, set: &Thing, active: &'a [Held]) -> Vec<&'a Held> {
    let crowds = crowds(world, set, active);
    let mut order: Vec<&Held> = active.iter().collect();
    order.sort_by_cached_key(|held| rank(held, &crowds));
    order
}

fn rank(held: &Held, crowds: &BTreeMap<Text, usize>) -> Rank {
    let Held { thing, pod } = held;
    let cost = thing
        .meta
        .annotation("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|cost| cost.parse::<i32>().ok())
        .unwrap_or(0);
    let phase = match pod.phase {
        PodPhase::Pending => 0,
        PodPhase::Unknown => 1,
        PodPhase::Running | PodPhase::Succeeded | PodPhase::Failed => 2,
    };
    (
        // One that no node has yet goes before one that runs.
        pod.node.is_some(),
        phase,
        pod.ready,
        i64::from(cost),
        // Doubled up on its node.
        Reverse(
            pod.node
                .as_ref()
                .and_then(|node| crowds.get(node))
                .copied()
                .unwrap_or(0),
        ),
        // Ready the shortest time.
        Reverse(pod.ready_since.map_or(i64::MAX, |since| since.ms())),
        Reverse(pod.restarts),
        // Newest.
        Reverse(thing.object.stamps.created.ms()),
        // So that the order is total.
        thing.object.key.name.clone(),
    )
}

/// How many active pods of this set, and of the other sets of its Deployment, are on each node.
fn crowds(world: &World, set: &Thing, active: &[Held]) -> BTreeMap<Text, usize> {
    let mut crowds: BTreeMap<Text, usize> = BTreeMap::new();
    let mut count = |node: &Option<Text>| {
        if let Some(node) = node {
            *crowds.entry(node.clone()).or_insert(0) += 1;
        }
    };
    active.iter().for_each(|held| count(&held.pod.node));
    let Some(owner) = set.meta.controller() else {
        return crowds;
    };
    for sibling in world
        .controlled(owner.uid, resource::REPLICA_SETS)
        .filter(|sibling| sibling.object.uid() != set.object.uid())
    {
        for thing in world.controlled(sibling.object.uid(), resource::PODS) {
            if let Kind::Pod(pod) = &thing.kind
                && pod.active(thing)
            {
                count(&pod.node);
            }
        }
    }
    crowds
}
