//! The ReplicaSets of a Deployment: which is the template's, how it is made and numbered, and how a new size is written.

use super::{Rollout, Version, Written, annotate, status};
use crate::World;
use crate::change::{controller_reference, map_at};
use crate::deployment::sizes::{Budget, Counts, Sized};
use crate::template::HASH_LABEL;
use crate::world::{Deployment, Kind, ReplicaSet, Thing, resource};
use eventstore::{Change, Key, Time};
use serde_json::{Value, json};
use std::sync::Arc;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A Deployment's annotations that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// How long the list of a version's earlier numbers may grow, in letters.
const MOST_HISTORY: usize = 2000;

/// The version of the template (the oldest, should there be several), and the others, oldest first.
pub fn split(
    world: &World,
    deployment: &Deployment,
    held: &[Arc<Thing>],
    now: Time,
) -> (Option<Version>, Vec<Version>) {
    let mut versions: Vec<Version> = held
        .iter()
        .filter_map(|thing| read(world, thing, now))
        .collect();
    versions.sort_by(|left, right| (left.made_at, &left.key).cmp(&(right.made_at, &right.key)));
    let new = versions
        .iter()
        .position(|version| version.view.template == deployment.template)
        .map(|index| versions.remove(index));
    (new, versions)
}

fn read(world: &World, thing: &Arc<Thing>, now: Time) -> Option<Version> {
    let Kind::ReplicaSet(view) = &thing.kind else {
        return None;
    };
    let written = Written::read(thing);
    let active: Vec<bool> = world
        .controlled(thing.object.uid(), resource::PODS)
        .filter_map(|pod| match &pod.kind {
            Kind::Pod(view) if view.active(pod) => Some(view),
            _ => None,
        })
        .map(|pod| pod.available(view.min_ready_s, now).is_ok())
        .collect();
    let available = active.iter().filter(|available| **available).count() as i64;
    Some(Version {
        key: thing.object.key.clone(),
        revision: written.number(REVISION).unwrap_or(0),
        size: view.replicas,
        pods: active.len() as i64,
        // Its status may be older than its pods, and its pods may be more than it is about to keep: the least of all three.
        available: view.replicas.min(view.status_available).min(available),
        made_at: thing.object.stamps.created,
        view: (**view).clone(),
        thing: Some(thing.clone()),
        written,
    })
}

pub fn sized(version: &Version) -> Sized {
    Sized {
        counts: Counts {
            size: version.size,
            pods: version.pods,
            available: version.available,
        },
        age: version.made_at.ms(),
        max_then: version.written.number(MAX),
        desired_then: version.written.number(DESIRED),
    }
}

/// Brings the new version's number and annotations up to date, if there is one.
pub fn adopt_revision(rollout: &mut Rollout) {
    let next = 1 + rollout
        .old
        .iter()
        .map(|version| version.revision)
        .max()
        .unwrap_or(0);
    let Some(new) = &mut rollout.new else { return };
    describe(new, rollout.thing, next);
    if new.view.min_ready_s != rollout.deployment.min_ready_s {
        set_min_ready(new.written.change(), rollout.deployment.min_ready_s);
    }
    let revision = new.revision;
    let name = new.key.name.clone();
    annotate(&mut rollout.object, REVISION, &revision.to_string());
    status::found(rollout, &name);
}

/// The version of the template, made if there is none: with size 0, for its growth is decided apart.
pub fn find_or_make(rollout: &mut Rollout) {
    if rollout.new.is_some() {
        adopt_revision(rollout);
        return;
    }
    let next = 1 + rollout
        .old
        .iter()
        .map(|version| version.revision)
        .max()
        .unwrap_or(0);
    let deployment = rollout.deployment;
    let hash = deployment.template.label(deployment.collisions);
    let owner = &rollout.thing.object.key;
    let key = Key::new(
        resource::REPLICA_SETS,
        owner.namespace.clone(),
        format!("{}-{hash}", owner.name),
    );
    if rollout.world.thing(&key).is_some() {
        // The name is taken by something that is not this template's: count the collision, and the hash comes out another.
        let collisions = deployment.collisions.unwrap_or(0) + 1;
        map_at(&mut rollout.object, "status").insert("collisionCount".into(), json!(collisions));
        return;
    }
    let mut version = Version {
        thing: None,
        view: ReplicaSet::default(),
        written: Written::made(object(rollout.thing, deployment, &key, &hash)),
        key: key.clone(),
        revision: 0,
        size: 0,
        pods: 0,
        available: 0,
        made_at: rollout.now,
    };
    describe(&mut version, rollout.thing, next);
    rollout.new = Some(version);
    annotate(&mut rollout.object, REVISION, &next.to_string());
    status::made(rollout, &key.name);
}

fn object(owner: &Thing, deployment: &Deployment, key: &Key, hash: &str) -> Value {
    let written = owner.object.to_value();
    let mut template = written["spec"]["template"].clone();
    map_at(map_at_value(&mut template, "metadata"), "labels")
        .insert(HASH_LABEL.into(), json!(hash));
    let mut selector = written["spec"]["selector"].clone();
    map_at(&mut selector, "matchLabels").insert(HASH_LABEL.into(), json!(hash));
    let mut spec = json!({ "replicas": 0, "selector": selector, "template": template });
    set_min_ready_in(&mut spec, deployment.min_ready_s);
    json!({
        "kind": "ReplicaSet", "apiVersion": "apps/v1",
        "metadata": {
            "name": &*key.name, "namespace": &*key.namespace, "generation": 1,
            "labels": spec["template"]["metadata"]["labels"].clone(),
            "ownerReferences": [controller_reference(owner)],
        },
        "spec": spec,
        "status": { "replicas": 0 },
    })
}

fn map_at_value<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    map_at(object, field);
    &mut object[field]
}

fn set_min_ready(object: &mut Value, seconds: i64) {
    set_min_ready_in(&mut object["spec"], seconds);
}

fn set_min_ready_in(spec: &mut Value, seconds: i64) {
    if let Some(spec) = spec.as_object_mut() {
        crate::change::set_unless_zero(spec, "minReadySeconds", seconds);
    }
}

/// Copies the Deployment's annotations, and numbers the version; an earlier number goes into its history.
fn describe(version: &mut Version, owner: &Thing, next: i64) {
    for (name, value) in &owner.meta.annotations {
        if !NOT_COPIED.contains(&&**name) {
            version.written.annotate(name, value);
        }
    }
    if version.revision >= next {
        return;
    }
    if version.revision > 0 && version.thing.is_some() {
        let history = version.written.annotation(REVISION_HISTORY);
        let history = history.unwrap_or("");
        let mut numbers: Vec<String> = history
            .split(',')
            .filter(|number| !number.is_empty())
            .map(str::to_owned)
            .collect();
        numbers.push(version.revision.to_string());
        while numbers.join(",").len() > MOST_HISTORY {
            numbers.remove(0);
        }
        version
            .written
            .annotate(REVISION_HISTORY, &numbers.join(","));
    }
    version.revision = next;
    version.written.annotate(REVISION, &next.to_string());
}

/// The change that brings a version to its new size and annotations; None when it is so already.
pub fn write(version: &Version, deployment: &Deployment, budget: Budget) -> Option<Change> {
    let mut written = version.written.clone();
    // The numbers that a later proportional scaling goes by; an empty version that stays empty keeps its old ones.
    if version.resized() || version.size > 0 || version.view.template == deployment.template {
        written.annotate(DESIRED, &deployment.replicas.to_string());
        let most = deployment.replicas + budget.max_surge;
        written.annotate(MAX, &most.to_string());
    }
    if version.resized() {
        written.change()["spec"]["replicas"] = json!(version.size);
    }
    written.into_change(&version.key)
}
