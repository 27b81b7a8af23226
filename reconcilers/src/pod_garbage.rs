//! Pods that nobody will ever confirm gone: on a node that is no more, or being deleted without having a node.
//!
//! A bound pod is else removed by its agent's report that its containers are gone, also one on a lost node: it may still run there.
//! Source: Kubernetes' pod garbage collector (pkg/controller/podgc).

use crate::change::{put, put_deleted, remove, unchanged};
use crate::conditions::{self, Condition};
use crate::world::{Kind, Pod, PodPhase, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Intent, Key, Time};
use serde_json::{Value, json};
use std::sync::Arc;

pub const NAME: &str = "pod-garbage-collector";

/// How old a pod must be before its node counts as missing: a node may be on its way.
const QUARANTINE_MS: i64 = 40_000;

#[derive(Debug)]
pub struct PodGarbage;

impl Reconciler for PodGarbage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        match touched {
            Touched::Session { node, .. } => wake_pods(node, world, wakes),
            Touched::Object { key, after, .. } if &*key.resource == resource::NODES => {
                if after.is_none() {
                    wake_pods(&key.name, world, wakes);
                }
            }
            Touched::Object {
                key,
                after: Some(after),
                ..
            } => {
                if matches!(&after.kind, Kind::Pod(pod) if concerns(world, after, pod)) {
                    wakes.wake(key.clone());
                }
            }
            Touched::Object { after: None, .. } => {}
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        let pods = world.list(resource::PODS, None);
        let wanted = pods
            .filter(|thing| matches!(&thing.kind, Kind::Pod(pod) if concerns(world, thing, pod)));
        wanted.for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some((thing, pod)) = world.pod(key) else {
            return Decision::nothing();
        };
        if !concerns(world, thing, pod) {
            return Decision::nothing();
        }
        let Some(node) = &pod.node else {
            return go(thing, pod, "it was never bound", now);
        };
        if world
            .session(node)
            .is_some_and(|session| session.lost.is_none())
        {
            // Its agent is there and will register its node again, or report the pod gone.
            return Decision::nothing();
        }
        let bound_at = pod.scheduled_since.unwrap_or(thing.object.stamps.created);
        let until = bound_at.plus_ms(QUARANTINE_MS);
        if until > now {
            return Decision::wait(Waiting::Grace { until }).again(until);
        }
        go(thing, pod, "its node is no more", now)
    }
}

fn wake_pods(node: &str, world: &World, wakes: &mut Wakes) {
    world
        .pods_on(node)
        .for_each(|(thing, _)| wakes.wake(thing.object.key.clone()));
}

/// Unbound and being deleted, or bound to a node that is not there.
fn concerns(world: &World, thing: &Thing, pod: &Pod) -> bool {
    match &pod.node {
        None => !thing.object.living(),
        Some(node) => world.node(node).is_none(),
    }
}

fn go(thing: &Arc<Thing>, pod: &Pod, why: &str, now: Time) -> Decision {
    let key = &thing.object.key;
    let intent = Intent::Remove { reason: why.into() };
    if thing.meta.finalizers.is_empty() {
        return Decision::propose(Draft {
            intent,
            expectations: vec![unchanged(thing)],
            changes: vec![remove(key)],
        });
    }
    // Somebody's finalizers hold it: it is marked as failed and deleted, and goes when they are done.
    let mut object = thing.object.to_value();
    if !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed) {
        object["status"]["phase"] = json!("Failed");
        let condition = Condition::new(
            "DisruptionTarget",
            "True",
            "DeletionByPodGC",
            "PodGC: node no longer exists",
        );
        conditions::set(
            &mut object["status"],
            &condition,
            &json!({ "lastProbeTime": Value::Null }),
            now,
        );
    }
    let change = match thing.object.stamps.deletion {
        Some(deletion) if deletion.grace_s == 0 => put(key, &object),
        _ => put_deleted(key, &object, 0),
    };
    let waiting = Waiting::Finalizers {
        finalizers: thing
            .meta
            .finalizers
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    if object == thing.object.to_value()
        && thing
            .object
            .stamps
            .deletion
            .is_some_and(|deletion| deletion.grace_s == 0)
    {
        return Decision::wait(waiting);
    }
    Decision::propose(Draft {
        intent,
        expectations: vec![unchanged(thing)],
        changes: vec![change],
    })
    .waiting(waiting)
}
