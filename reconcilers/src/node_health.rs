//! Node health: what a node's condition Ready means for its taints and its pods.
//!
//! A node that came through an agent lives by its session: when that is lost, the node's conditions become Unknown and its pods unready,
//! which only the agent's own report undoes. A node that came through the API (no session ever) is what its status says; its eviction by a
//! stale Lease is not decided here yet. Taints follow the conditions; `taint_eviction` follows the taints.
//! One writer: of a node's conditions only where the session is lost, of its taints those named `node.kubernetes.io/…` in `follows`.

use crate::change::{put, unchanged};
use crate::conditions::{self, Condition};
use crate::events::{Severity, Tale, tell};
use crate::world::{Kind, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Wakes, World};
use eventstore::{Intent, Key, Time};
use serde_json::{Value, json};
use std::sync::Arc;

pub const NAME: &str = "node-controller";

/// How many pods one decision marks unready; more follow in the next.
const MOST_PODS: usize = 500;

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// What a kubelet reports of itself, and nobody knows once it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

#[derive(Debug)]
pub struct NodeHealth;

impl Reconciler for NodeHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    fn first(&self) -> bool {
        true
    }

    fn wakes(&self, touched: &Touched, _: &World, wakes: &mut Wakes) {
        match touched {
            Touched::Session { node, .. } => {
                wakes.wake(Key::new(resource::NODES, "", node.clone()))
            }
            Touched::Object { key, .. } if &*key.resource == resource::NODES => {
                wakes.wake(key.clone())
            }
            Touched::Object { .. } => {}
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::NODES, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some((thing, node)) = world.node(&key.name) else {
            return Decision::nothing();
        };
        let lost = world
            .session(&key.name)
            .is_some_and(|session| session.lost.is_some());
        let before = thing.object.to_value();
        let mut object = before.clone();
        if lost {
            forget_reports(&mut object, now);
        }
        let unready = unready(&object);
        follow(&mut object, node.unschedulable, now);
        let mut decision = Decision::nothing();
        if object != before {
            decision
                .drafts
                .push(write(world, thing, &before, &object, now));
        }
        if unready == Some("Unknown") {
            decision = mark_pods(world, key, decision, now);
        }
        decision
    }
}

/// The status of the condition Ready, if it is not True.
fn unready(object: &Value) -> Option<&'static str> {
    match conditions::find(&object["status"], "Ready")?["status"].as_str() {
        Some("True") => None,
        Some("False") => Some("False"),
        _ => Some("Unknown"),
    }
}

/// The agent is silent: nobody knows how its node is.
fn forget_reports(object: &mut Value, now: Time) {
    for name in REPORTED {
        let before = conditions::find(&object["status"], name);
        if (before.is_none() && name != "Ready")
            || before.is_some_and(|before| before["status"] == "Unknown")
        {
            continue;
        }
        let heartbeat = before
            .and_then(|before| before.get("lastHeartbeatTime"))
            .cloned();
        let more = heartbeat.map_or(
            json!({}),
            |heartbeat| json!({ "lastHeartbeatTime": heartbeat }),
        );
        let unknown = Condition::new(
            name,
            "Unknown",
            "NodeStatusUnknown",
            "Kubelet stopped posting node status.",
        );
        conditions::set(&mut object["status"], &unknown, &more, now);
    }
}

/// The taints that follow from a node's state: (key, effect, whether it is there). Source: KEP-166 (taint nodes by condition).
fn follows(object: &Value, unschedulable: bool) -> Vec<(&'static str, &'static str, bool)> {
    let is = |name: &str, status: &str| {
        conditions::find(&object["status"], name)
            .is_some_and(|condition| condition["status"] == status)
    };
    let mut taints = vec![
        (
            "node.kubernetes.io/unschedulable",
            NO_SCHEDULE,
            unschedulable,
        ),
        (
            "node.kubernetes.io/memory-pressure",
            NO_SCHEDULE,
            is("MemoryPressure", "True"),
        ),
        (
            "node.kubernetes.io/disk-pressure",
            NO_SCHEDULE,
            is("DiskPressure", "True"),
        ),
        (
            "node.kubernetes.io/pid-pressure",
            NO_SCHEDULE,
            is("PIDPressure", "True"),
        ),
        (
            "node.kubernetes.io/network-unavailable",
            NO_SCHEDULE,
            is("NetworkUnavailable", "True"),
        ),
    ];
    // Before it reports at all, its taints stay as it registered with them.
    if conditions::find(&object["status"], "Ready").is_some() {
        let (not_ready, unreachable) = match unready(object) {
            None => (false, false),
            Some("False") => (true, false),
            Some(_) => (false, true),
        };
        for effect in [NO_SCHEDULE, NO_EXECUTE] {
            taints.push(("node.kubernetes.io/not-ready", effect, not_ready));
            taints.push(("node.kubernetes.io/unreachable", effect, unreachable));
        }
    }
    taints
}

/// Adds and removes taints, and gives every NoExecute taint the time that its tolerations count from.
fn follow(object: &mut Value, unschedulable: bool, now: Time) {
    let wanted = follows(object, unschedulable);
    let mut taints: Vec<Value> = object["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let before = taints.clone();
    for (key, effect, there) in wanted {
        let is = |taint: &Value| taint["key"] == key && taint["effect"] == effect;
        match (taints.iter().any(is), there) {
            (false, true) => {
                taints.push(json!({ "key": key, "effect": effect, "timeAdded": now.to_string() }))
            }
            (true, false) => taints.retain(|taint| !is(taint)),
            (true, true) | (false, false) => {}
        }
    }
    for taint in taints
        .iter_mut()
        .filter(|taint| taint["effect"] == NO_EXECUTE && !taint["timeAdded"].is_string())
    {
        taint["timeAdded"] = json!(now.to_string());
    }
    if taints == before {
        return;
    }
    let spec = crate::change::map_at(object, "spec");
    if taints.is_empty() {
        spec.shift_remove("taints");
    } else {
        spec.insert("taints".into(), Value::Array(taints));
    }
}

fn write(world: &World, thing: &Arc<Thing>, before: &Value, object: &Value, now: Time) -> Draft {
    let taints = |object: &Value| {
        let taints = object["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        taints
            .iter()
            .map(|taint| {
                format!(
                    "{}:{}",
                    taint["key"].as_str().unwrap_or(""),
                    taint["effect"].as_str().unwrap_or("")
                )
            })
            .collect::<Vec<_>>()
    };
    let (had, has) = (taints(before), taints(object));
    let added = has
        .iter()
        .filter(|taint| !had.contains(taint))
        .map(|taint| format!("+{taint}"));
    let removed = had
        .iter()
        .filter(|taint| !has.contains(taint))
        .map(|taint| format!("-{taint}"));
    let said: Vec<String> = added.chain(removed).collect();
    let mut changes = vec![put(&thing.object.key, object)];
    let (was_ready, is_ready) = (unready(before).is_none(), unready(object).is_none());
    if was_ready && !is_ready {
        let message = format!("Node {} status is now: NodeNotReady", thing.object.key.name);
        let tale = Tale {
            component: NAME,
            severity: Severity::Normal,
            reason: "NodeNotReady",
            message,
        };
        changes.extend(tell(world, thing, &tale, now));
    }
    let reason = if said.is_empty() {
        "the session is lost".to_owned()
    } else {
        said.join(", ")
    };
    Draft {
        intent: Intent::Taint {
            reason: reason.into(),
        },
        expectations: vec![unchanged(thing)],
        changes,
    }
}

/// Pods of a node that nobody hears from can't be said to be ready.
fn mark_pods(world: &World, node: &Key, mut decision: Decision, now: Time) -> Decision {
    let ready = world.pods_on(&node.name).filter(|(_, pod)| pod.ready);
    for (thing, _) in ready.take(MOST_PODS + 1) {
        if decision.drafts.len() > MOST_PODS {
            return decision.again(now);
        }
        debug_assert!(matches!(thing.kind, Kind::Pod(_)));
        let mut object = thing.object.to_value();
        let more = json!({ "lastProbeTime": Value::Null });
        conditions::set(
            &mut object["status"],
            &Condition::new("Ready", "False", "NodeNotReady", ""),
            &more,
            now,
        );
        let mut changes = vec![put(&thing.object.key, &object)];
        let tale = Tale {
            component: NAME,
            severity: Severity::Warning,
            reason: "NodeNotReady",
            message: "Node is not ready".to_owned(),
        };
        changes.extend(tell(world, thing, &tale, now));
        decision.drafts.push(Draft {
            intent: Intent::Status,
            expectations: vec![unchanged(thing)],
            changes,
        });
    }
    decision
}
