//! NoExecute taints: a pod that does not tolerate one is deleted at once, one that tolerates it for some seconds after these.
//!
//! The time counts from the taint's `timeAdded`, which `node_health` fills in; nothing is remembered here, so a new leader finds the same
//! deadline. Source: Kubernetes' documentation, "Taint based Evictions".

use crate::change::{delete_with, unchanged};
use crate::conditions::{self, Condition};
use crate::events::{Severity, Tale, tell};
use crate::scheduler::tolerates;
use crate::world::{Kind, Node, Pod, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Intent, Key, Time};
use serde_json::{Value, json};
use std::sync::Arc;

pub const NAME: &str = "taint-eviction-controller";

#[derive(Debug)]
pub struct TaintEviction;

impl Reconciler for TaintEviction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        let Touched::Object {
            key, before, after, ..
        } = touched
        else {
            return;
        };
        match &*key.resource {
            resource::PODS => {
                // A pod matters here from its binding on; its deadline depends on its tolerations alone.
                let bound =
                    |thing: &Option<Arc<Thing>>| match thing.as_ref().map(|thing| &thing.kind) {
                        Some(Kind::Pod(pod)) => {
                            pod.node.clone().map(|node| (node, pod.tolerations.clone()))
                        }
                        _ => None,
                    };
                if after.is_some() && bound(before) != bound(after) {
                    wakes.wake(key.clone());
                }
            }
            resource::NODES => {
                let taints =
                    |thing: &Option<Arc<Thing>>| match thing.as_ref().map(|thing| &thing.kind) {
                        Some(Kind::Node(node)) => node.taints.clone(),
                        _ => Vec::new(),
                    };
                if taints(before) != taints(after) {
                    world
                        .pods_on(&key.name)
                        .for_each(|(thing, _)| wakes.wake(thing.object.key.clone()));
                }
            }
            _ => {}
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        for thing in world.list(resource::NODES, None) {
            if matches!(&thing.kind, Kind::Node(node) if node.taints.iter().any(|taint| &*taint.effect == "NoExecute"))
            {
                world
                    .pods_on(&thing.object.key.name)
                    .for_each(|(thing, _)| wakes.wake(thing.object.key.clone()));
            }
        }
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some((thing, pod)) = world.pod(key) else {
            return Decision::nothing();
        };
        let Some((_, node)) = pod.node.as_ref().and_then(|node| world.node(node)) else {
            return Decision::nothing();
        };
        if !thing.object.living() {
            return Decision::nothing();
        }
        match deadline(node, pod) {
            None => Decision::nothing(),
            Some(until) if until > now => Decision::wait(Waiting::Grace { until }).again(until),
            Some(_) => evict(world, thing, now),
        }
    }
}

/// When the pod has to go; None: it may stay.
fn deadline(node: &Node, pod: &Pod) -> Option<Time> {
    let taints = node
        .taints
        .iter()
        .filter(|taint| &*taint.effect == "NoExecute");
    let deadlines = taints.filter_map(|taint| {
        let tolerating: Vec<_> = pod
            .tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
            .collect();
        if tolerating.is_empty() {
            return Some(Time::default());
        }
        let shortest = tolerating
            .iter()
            .filter_map(|toleration| toleration.toleration_seconds)
            .min()?;
        // Without its time the taint was added only now: `node_health` writes it, which wakes this again.
        let added = taint.time_added?;
        Some(if shortest <= 0 {
            Time::default()
        } else {
            added.plus_ms(shortest.saturating_mul(1000))
        })
    });
    deadlines.min()
}

fn evict(world: &World, thing: &Arc<Thing>, now: Time) -> Decision {
    let mut object = thing.object.to_value();
    let message = "Taint manager: deleting due to NoExecute taint";
    let condition = Condition::new(
        "DisruptionTarget",
        "True",
        "DeletionByTaintManager",
        message,
    );
    let mut more = json!({ "lastProbeTime": Value::Null });
    if thing.meta.generation > 0 {
        more["observedGeneration"] = json!(thing.meta.generation);
    }
    conditions::set(&mut object["status"], &condition, &more, now);
    let mut changes: Vec<_> = delete_with(thing, object).into_iter().collect();
    let key = &thing.object.key;
    let told = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
    let tale = Tale {
        component: NAME,
        severity: Severity::Normal,
        reason: "TaintManagerEviction",
        message: told,
    };
    changes.extend(tell(world, thing, &tale, now));
    Decision::propose(Draft {
        intent: Intent::Evict {
            reason: message.into(),
        },
        expectations: vec![unchanged(thing)],
        changes,
    })
}
