//! A ReplicaSet's status: counted from its pods. Only this reconciler writes it.

use super::Held;
use crate::Draft;
use crate::change::{put, set_unless_zero, unchanged};
use crate::world::{ReplicaSet, Selector, Thing};
use eventstore::{Intent, Time};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    replicas: i64,
    fully_labeled: i64,
    ready: i64,
    pub available: i64,
    terminating: i64,
    /// When the next of those that are ready will count as available.
    pub available_at: Option<Time>,
}

pub(super) fn count(
    set: &ReplicaSet,
    thing: &Thing,
    active: &[Held],
    others: &[Held],
    now: Time,
) -> Counted {
    let template = template(thing);
    let mut counted = Counted::default();
    for held in active {
        counted.add(set, &template, held, 1, now);
        if let Err(Some(at)) = held.pod.available(set.min_ready_s, now) {
            counted.available_at = Some(counted.available_at.map_or(at, |before| before.min(at)));
        }
    }
    counted.terminating = others
        .iter()
        .filter(|held| !held.thing.object.living() && !held.pod.finished())
        .count() as i64;
    counted
}

/// What a pod's labels must be for it to be fully labeled.
fn template(thing: &Thing) -> Selector {
    let written = thing.object.to_value();
    let labels = json!({ "matchLabels": written["spec"]["template"]["metadata"]["labels"] });
    serde_json::from_value(labels).unwrap_or_default()
}

impl Counted {
    fn add(&mut self, set: &ReplicaSet, template: &Selector, held: &Held, times: i64, now: Time) {
        self.replicas += times;
        self.fully_labeled += times * i64::from(template.matches(&held.thing.meta.labels));
        self.ready += times * i64::from(held.pod.ready);
        self.available += times * i64::from(held.pod.available(set.min_ready_s, now).is_ok());
    }

    /// So many pods are made of the template.
    pub(super) fn made(&mut self, pods: usize) {
        self.replicas += pods as i64;
        self.fully_labeled += pods as i64;
    }

    /// These pods are deleted: those with a node, or with finalizers, are still there for a while.
    pub(super) fn left(&mut self, set: &ReplicaSet, thing: &Thing, leaving: &[&Held], now: Time) {
        let template = template(thing);
        for held in leaving {
            self.add(set, &template, held, -1, now);
            let stays = (held.pod.node.is_some() && held.pod.grace_s > 0)
                || !held.thing.meta.finalizers.is_empty();
            self.terminating += i64::from(stays);
        }
    }
}

/// The draft that writes it, if it is another than what is written.
pub(super) fn write(thing: &Thing, counted: &Counted) -> Option<Draft> {
    let mut object = thing.object.to_value();
    let before = object["status"].clone();
    let mut status = Map::new();
    status.insert("replicas".into(), json!(counted.replicas));
    set_unless_zero(&mut status, "fullyLabeledReplicas", counted.fully_labeled);
    set_unless_zero(&mut status, "readyReplicas", counted.ready);
    set_unless_zero(&mut status, "availableReplicas", counted.available);
    status.insert("terminatingReplicas".into(), json!(counted.terminating));
    set_unless_zero(&mut status, "observedGeneration", thing.meta.generation);
    // Making a pod doesn't fail here, so a ReplicaFailure that somebody left is over; other conditions are somebody else's.
    let mut kept = json!({ "conditions": before["conditions"].clone() });
    crate::conditions::remove(&mut kept, "ReplicaFailure");
    if let Some(conditions) = kept
        .get("conditions")
        .filter(|conditions| conditions.as_array().is_some_and(|list| !list.is_empty()))
    {
        status.insert("conditions".into(), conditions.clone());
    }
    let after = Value::Object(status);
    if after == before {
        return None;
    }
    object["status"] = after;
    Some(Draft {
        intent: Intent::Status,
        expectations: vec![unchanged(thing)],
        changes: vec![put(&thing.object.key, &object)],
    })
}
