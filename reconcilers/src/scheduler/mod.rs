//! The scheduler: which node each pending pod goes to.
//!
//! `filter` rules nodes out, each with its reason; `score` prefers among the rest; `candidates` is the round's picture of all nodes,
//! which counts what this round has placed. A bind is one proposal: `spec.nodeName` and the condition PodScheduled. A pod that fits
//! nowhere says so in that condition, written only when it changes; it is looked at again when a node or a bound pod changes, not by a clock.
//!
//! What a bind expects, and why no node is overcommitted by it: capacity is taken by binds alone. The scheduler's own are decided over a
//! world that holds all earlier ones (a round waits until the last one's proposals are folded, and apply rejects another term's), and those
//! of this round are counted. Binds through the API write the node's `~binds` key, which is expected as the world has it. And the Node is
//! expected at its revision, so that capacity, taints and labels are those that were weighed. The pod is expected at its revision.

mod candidates;
mod filter;
mod score;

use crate::change::{absent, expect, put, unchanged};
use crate::conditions::{self, Condition};
use crate::events::{Severity, Tale, tell};
use crate::world::{Kind, Pod, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use candidates::{Candidate, Candidates};
use eventstore::{Expected, Intent, Key, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use candidates::Candidates as Placed;
pub use filter::tolerates;

/// Pods that name another scheduler are not ours.
pub const NAME: &str = "default-scheduler";

#[derive(Debug)]
pub struct Scheduler;

/// Stands for every pod that waits for a node.
fn all_pending() -> Key {
    Key::new(resource::PODS, "", "*")
}

impl Reconciler for Scheduler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, _: &World, wakes: &mut Wakes) {
        let Touched::Object {
            key, before, after, ..
        } = touched
        else {
            return;
        };
        if &*key.resource == resource::NODES {
            if !same_node(before.as_ref(), after.as_ref()) {
                wakes.wake(all_pending());
            }
            return;
        }
        if &*key.resource != resource::PODS {
            return;
        }
        if after.as_ref().is_some_and(|after| pending(after)) {
            wakes.wake(key.clone());
        }
        if leaves_room(before.as_ref(), after.as_ref()) {
            wakes.wake(all_pending());
        }
    }

    fn keys(&self, _: &World, wakes: &mut Wakes) {
        wakes.wake(all_pending());
    }

    fn stands_for(&self, world: &World, key: &Key) -> Option<Vec<Key>> {
        (*key == all_pending()).then(|| {
            world
                .unbound()
                .filter(|(thing, _)| pending(thing))
                .map(|(thing, _)| thing.object.key.clone())
                .collect()
        })
    }

    /// Higher priority first, then the older one.
    fn order(&self, world: &World, key: &Key) -> (i64, i64) {
        world.pod(key).map_or((0, 0), |(thing, pod)| {
            (-pod.priority, thing.object.stamps.created.ms())
        })
    }

    fn decide(&self, world: &World, key: &Key, round: &mut RoundState, now: Time) -> Decision {
        let Some((thing, pod)) = world.pod(key) else {
            return Decision::nothing();
        };
        if !pending(thing) {
            return Decision::nothing();
        }
        if !pod.gates.is_empty() {
            return Decision::wait(Waiting::Gated {
                gates: pod.gates.iter().map(ToString::to_string).collect(),
            });
        }
        let placed = round.placed.get_or_insert_with(|| Candidates::read(world));
        match placed.choose(thing, pod) {
            Ok((index, fitting)) => {
                let node = &placed.nodes[index];
                let draft = bind(
                    world,
                    thing,
                    node,
                    node.why(pod, fitting, placed.nodes.len()),
                    now,
                );
                placed.place(index, thing, pod);
                Decision::propose(draft)
            }
            Err(reasons) => unschedulable(world, thing, pod, placed.nodes.len(), reasons, now),
        }
    }
}

/// Whether it is this scheduler's to place: unbound, living, not finished.
fn pending(thing: &Thing) -> bool {
    match &thing.kind {
        Kind::Pod(pod) => pod.node.is_none() && pod.active(thing) && &*pod.scheduler == NAME,
        _ => false,
    }
}

/// Whether a node's change could not make a difference to any pod: its status is reported far more often than it changes.
fn same_node(before: Option<&Arc<Thing>>, after: Option<&Arc<Thing>>) -> bool {
    match (
        before.map(|thing| (&thing.kind, &thing.meta.labels)),
        after.map(|thing| (&thing.kind, &thing.meta.labels)),
    ) {
        (Some((Kind::Node(before), labels_before)), Some((Kind::Node(after), labels))) => {
            before.allocatable == after.allocatable
                && before.unschedulable == after.unschedulable
                && before.taints == after.taints
                && labels_before == labels
        }
        _ => false,
    }
}

/// A bound pod went, finished, or asks for less than it did.
fn leaves_room(before: Option<&Arc<Thing>>, after: Option<&Arc<Thing>>) -> bool {
    let taken = |thing: Option<&Arc<Thing>>| match thing.map(|thing| &thing.kind) {
        Some(Kind::Pod(pod)) if pod.node.is_some() && !pod.finished() => {
            Some((pod.requests.clone(), pod.host_ports.clone()))
        }
        _ => None,
    };
    match (taken(before), taken(after)) {
        (Some(before), after) => after.as_ref() != Some(&before),
        (None, _) => false,
    }
}

fn bind(world: &World, thing: &Thing, node: &Candidate, why: String, now: Time) -> Draft {
    let mut object = thing.object.to_value();
    object["spec"]["nodeName"] = json!(&*node.name);
    let bound = Condition::new("PodScheduled", "True", "", "");
    conditions::set(
        &mut object["status"],
        &bound,
        &json!({ "lastProbeTime": Value::Null }),
        now,
    );
    let binds = World::binds_key(&node.name);
    let binds = world.binds(&node.name).map_or_else(
        || absent(&binds),
        |revision| expect(binds.clone(), Expected::Revision(revision)),
    );
    let key = &thing.object.key;
    let message = format!(
        "Successfully assigned {}/{} to {}",
        key.namespace, key.name, node.name
    );
    let tale = Tale {
        component: NAME,
        severity: Severity::Normal,
        reason: "Scheduled",
        message,
    };
    let mut changes = vec![put(key, &object)];
    changes.extend(tell(world, thing, &tale, now));
    Draft {
        intent: Intent::Bind {
            node: node.name.clone(),
            reason: why.into(),
        },
        expectations: vec![
            unchanged(thing),
            expect(
                Key::new(resource::NODES, "", node.name.clone()),
                Expected::Revision(node.revision),
            ),
            binds,
        ],
        changes,
    }
}

fn unschedulable(
    world: &World,
    thing: &Thing,
    pod: &Pod,
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    now: Time,
) -> Decision {
    let mut listed: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    listed.sort();
    let message = match nodes {
        0 => "no nodes available to schedule pods".to_owned(),
        nodes => format!("0/{nodes} nodes are available: {}.", listed.join(", ")),
    };
    let waiting = Waiting::Unschedulable {
        nodes,
        reasons: reasons.into_iter().collect(),
    };
    let said = pod
        .scheduled
        .as_ref()
        .map(|(status, reason, message)| (status.as_str(), reason.as_str(), message.as_str()));
    if said == Some(("False", "Unschedulable", message.as_str())) {
        return Decision::wait(waiting);
    }
    let mut object = thing.object.to_value();
    let mut more = json!({ "lastProbeTime": Value::Null });
    if thing.meta.generation > 0 {
        more["observedGeneration"] = json!(thing.meta.generation);
    }
    let condition = Condition::new("PodScheduled", "False", "Unschedulable", message.clone());
    conditions::set(&mut object["status"], &condition, &more, now);
    let tale = Tale {
        component: NAME,
        severity: Severity::Warning,
        reason: "FailedScheduling",
        message,
    };
    let mut changes = vec![put(&thing.object.key, &object)];
    changes.extend(tell(world, thing, &tale, now));
    Decision::propose(Draft {
        intent: Intent::Status,
        expectations: vec![unchanged(thing)],
        changes,
    })
    .waiting(waiting)
}
