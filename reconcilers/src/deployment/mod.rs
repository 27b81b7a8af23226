//! Deployment: rolls its pods from one template to the next, through ReplicaSets.
//!
//! Where is what: `sizes` is the arithmetic of rollouts and scaling, pure numbers in and out; `version` finds or makes the ReplicaSet of
//! the template; `status` counts and writes conditions; here they are put together. A decision is one proposal: all ReplicaSets it
//! resizes and the Deployment's own status and revision, expecting each as it was read, so that a rollout's step is taken whole or not at
//! all. It never touches pods. Behaviour: Kubernetes 1.36, pkg/controller/deployment.

mod sizes;
mod status;
mod version;
mod written;

use crate::change::{delete, put, unchanged};
use crate::claim::claim;
use crate::events::{Severity, Tale, tell};
use crate::world::{Deployment, Kind, ReplicaSet, Strategy, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Change, Expectation, Intent, Key, Time};
use serde_json::{Value, json};
use sizes::{Budget, Counts};
use std::sync::Arc;
use written::Written;

pub const NAME: &str = "deployment-controller";

#[derive(Debug)]
pub struct Deployments;

impl Reconciler for Deployments {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        if let Some(key) = touched.of(resource::DEPLOYMENTS) {
            wakes.wake(key.clone());
        }
        for thing in touched.versions() {
            match &thing.kind {
                Kind::ReplicaSet(_) => wake_owner(thing, world, wakes),
                Kind::Pod(_) => {
                    let owner = thing
                        .meta
                        .controller()
                        .filter(|owner| &*owner.kind == "ReplicaSet");
                    let set = owner.map(|owner| {
                        Key::new(
                            resource::REPLICA_SETS,
                            thing.object.key.namespace.clone(),
                            owner.name.clone(),
                        )
                    });
                    if let Some(set) = set.and_then(|key| world.thing(&key)) {
                        wake_owner(set, world, wakes);
                    }
                }
                _ => {}
            }
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::DEPLOYMENTS, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        match &thing.kind {
            Kind::Deployment(deployment) => decide(world, thing, deployment, now),
            Kind::Unreadable(why) => Decision::wait(Waiting::Unreadable { why: why.clone() }),
            _ => Decision::nothing(),
        }
    }
}

/// The Deployment of a ReplicaSet, or those that might adopt it.
fn wake_owner(set: &Thing, world: &World, wakes: &mut Wakes) {
    let namespace = &set.object.key.namespace;
    match set.meta.controller() {
        Some(owner) if &*owner.kind == "Deployment" => wakes.wake(Key::new(
            resource::DEPLOYMENTS,
            namespace.clone(),
            owner.name.clone(),
        )),
        Some(_) => {}
        None => {
            for candidate in world.list(resource::DEPLOYMENTS, Some(namespace)) {
                if matches!(&candidate.kind, Kind::Deployment(deployment) if deployment.selector.matches(&set.meta.labels))
                {
                    wakes.wake(candidate.object.key.clone());
                }
            }
        }
    }
}

/// A ReplicaSet of the Deployment, as it was read and as it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// None: it is made by this decision.
    thing: Option<Arc<Thing>>,
    key: Key,
    view: ReplicaSet,
    written: Written,
    /// Its number in the Deployment's history; 0: it has none.
    revision: i64,
    /// `spec.replicas` as it is to be.
    size: i64,
    /// How many pods it has that are neither finished nor being deleted.
    pods: i64,
    /// How many of its pods are available, by the least favourable of what is known.
    available: i64,
    made_at: Time,
}

impl Version {
    fn resized(&self) -> bool {
        self.thing.is_none() || self.size != self.view.replicas
    }

    fn counts(&self) -> Counts {
        Counts {
            size: self.size,
            pods: self.pods,
            available: self.available.min(self.size),
        }
    }
}

/// All that a decision about one Deployment works on.
pub(crate) struct Rollout<'a> {
    world: &'a World,
    thing: &'a Arc<Thing>,
    deployment: &'a Deployment,
    budget: Budget,
    now: Time,
    /// The Deployment as it was read.
    before: Value,
    /// The ReplicaSet of the current template, if there is one.
    new: Option<Version>,
    /// The others, oldest first.
    old: Vec<Version>,
    /// The Deployment as it is to be.
    object: Value,
    /// What is deleted for the history's limit.
    doomed: Vec<Arc<Thing>>,
    waiting: Option<Waiting>,
}

fn decide(world: &World, thing: &Arc<Thing>, deployment: &Deployment, now: Time) -> Decision {
    if deployment.selector.is_empty() {
        // It would select every pod there is: Kubernetes only takes note of it.
        return status::observe_only(thing);
    }
    let claim = claim(world, thing, resource::REPLICA_SETS, &deployment.selector);
    if !claim.drafts.is_empty() {
        return Decision {
            drafts: claim.drafts,
            ..Decision::default()
        };
    }
    let mut rollout = Rollout::read(world, thing, deployment, &claim.held, now);
    if thing.object.living() {
        rollout.plan();
    } else {
        status::count(&mut rollout);
    }
    rollout.into_decision()
}

impl<'a> Rollout<'a> {
    fn read(
        world: &'a World,
        thing: &'a Arc<Thing>,
        deployment: &'a Deployment,
        held: &[Arc<Thing>],
        now: Time,
    ) -> Self {
        let (new, old) = version::split(world, deployment, held, now);
        let budget = Budget::of(deployment);
        let before = thing.object.to_value();
        Self {
            world,
            thing,
            deployment,
            budget,
            now,
            new,
            old,
            object: before.clone(),
            before,
            doomed: Vec::new(),
            waiting: None,
        }
    }

    fn plan(&mut self) {
        status::pause_or_resume(self);
        let scaled = self.scaled_by_user();
        if self.deployment.paused || scaled {
            version::adopt_revision(self);
            self.scale();
        }
        if self.deployment.paused {
            self.limit_history();
            self.waiting = Some(Waiting::Paused);
            status::count(self);
            return;
        }
        let acted = match self.deployment.strategy {
            Strategy::RollingUpdate { .. } => self.roll(),
            Strategy::Recreate => self.recreate(),
        };
        if !acted && !scaled && self.complete() {
            self.limit_history();
        }
        status::count(self);
        status::judge_progress(self);
    }

    /// A living ReplicaSet was last sized for another number of replicas than is asked for now.
    fn scaled_by_user(&self) -> bool {
        self.all()
            .filter(|version| version.size > 0)
            .any(|version| {
                let desired = version.written.number(version::DESIRED);
                desired.is_some_and(|desired| desired != self.deployment.replicas)
            })
    }

    fn scale(&mut self) {
        let rolling = matches!(self.deployment.strategy, Strategy::RollingUpdate { .. });
        let mut sets: Vec<sizes::Sized> = self.all().map(version::sized).collect();
        sizes::scale(&mut sets, self.new.is_some(), self.budget, rolling);
        for (version, sized) in self.all_mut().zip(&sets) {
            version.size = sized.counts.size;
        }
    }

    fn roll(&mut self) -> bool {
        version::find_or_make(self);
        let Some(new) = &mut self.new else {
            return true;
        };
        let olds: Vec<Counts> = self.old.iter().map(Version::counts).collect();
        let (grown, shrunk) = sizes::roll(new.counts(), &olds, self.budget);
        let mut acted = new.thing.is_none() || grown != new.size;
        new.size = grown;
        for (version, size) in self.old.iter_mut().zip(shrunk) {
            acted |= version.size != size;
            version.size = size;
        }
        acted
    }

    fn recreate(&mut self) -> bool {
        version::adopt_revision(self);
        if self.old.iter().any(|version| version.size > 0) {
            self.old.iter_mut().for_each(|version| version.size = 0);
            return true;
        }
        let left = self.old_pods_left();
        if left > 0 {
            self.waiting = Some(Waiting::OldPods { left });
            return true;
        }
        version::find_or_make(self);
        let Some(new) = &mut self.new else {
            return true;
        };
        let grown = new.thing.is_none() || new.size != self.deployment.replicas;
        new.size = self.deployment.replicas;
        grown
    }

    /// Pods of old versions that may still run, those being deleted too.
    fn old_pods_left(&self) -> usize {
        let pods = |version: &Version| {
            let uid = version.thing.as_ref().map(|thing| thing.object.uid());
            let pods = uid
                .into_iter()
                .flat_map(|uid| self.world.controlled(uid, resource::PODS));
            pods.filter(|thing| !matches!(&thing.kind, Kind::Pod(pod) if pod.finished()))
                .count()
        };
        self.old
            .iter()
            .map(|version| pods(version).max(version.view.status_replicas.max(0) as usize))
            .sum()
    }

    /// Every replica is of the new version and available.
    fn complete(&self) -> bool {
        let wanted = self.deployment.replicas;
        let all: i64 = self.all().map(|version| version.view.status_replicas).sum();
        let available: i64 = self
            .all()
            .map(|version| version.view.status_available)
            .sum();
        all == wanted
            && available == wanted
            && self
                .new
                .as_ref()
                .is_some_and(|new| new.view.status_replicas == wanted)
    }

    /// Old versions past `spec.revisionHistoryLimit` go, once they are empty.
    fn limit_history(&mut self) {
        let living = self.old.iter().filter(|version| {
            version
                .thing
                .as_ref()
                .is_some_and(|thing| thing.object.living())
        });
        let mut living: Vec<&Version> = living.collect();
        living.sort_by_key(|version| (version.revision, version.made_at));
        let too_many = living
            .len()
            .saturating_sub(self.deployment.revision_history_limit.max(0) as usize);
        let doomed = living.into_iter().take(too_many).filter(|version| {
            let view = &version.view;
            let seen = version
                .thing
                .as_ref()
                .is_some_and(|thing| thing.meta.generation <= view.observed_generation);
            view.status_replicas == 0 && view.replicas == 0 && version.size == 0 && seen
        });
        self.doomed = doomed.filter_map(|version| version.thing.clone()).collect();
    }

    /// The new version first, then the old ones.
    fn all(&self) -> impl Iterator<Item = &Version> {
        self.new.iter().chain(&self.old)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Version> {
        self.new.iter_mut().chain(&mut self.old)
    }

    fn into_decision(self) -> Decision {
        let again_at = status::look_again(&self);
        let waiting = self.waiting.clone().or_else(|| status::waits_for(&self));
        let mut expectations: Vec<Expectation> = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        let mut said: Vec<String> = Vec::new();
        for version in self.all() {
            if let Some(change) = version::write(version, self.deployment, self.budget) {
                expectations.push(version.thing.as_ref().map_or_else(
                    || crate::change::absent(&version.key),
                    |thing| unchanged(thing),
                ));
                changes.push(change);
            }
            if version.resized() && (version.size != 0 || version.thing.is_some()) {
                let from = version.thing.as_ref().map_or(0, |_| version.view.replicas);
                said.push(format!(
                    "scale {} from {from} to {}",
                    version.key.name, version.size
                ));
                let up = if version.size > from { "up" } else { "down" };
                let message = format!(
                    "Scaled {up} replica set {} from {from} to {}",
                    version.key.name, version.size
                );
                let tale = Tale {
                    component: NAME,
                    severity: Severity::Normal,
                    reason: "ScalingReplicaSet",
                    message,
                };
                changes.extend(tell(self.world, self.thing, &tale, self.now));
            }
        }
        for doomed in &self.doomed {
            expectations.push(unchanged(doomed));
            changes.extend(delete(doomed));
            said.push(format!("forget {}", doomed.object.key.name));
        }
        if self.object != self.before {
            changes.push(put(&self.thing.object.key, &self.object));
        }
        let mut decision = Decision {
            drafts: Vec::new(),
            waiting,
            again_at,
        };
        if changes.is_empty() {
            return decision;
        }
        expectations.push(unchanged(self.thing));
        if self.new.as_ref().is_some_and(|new| new.thing.is_none()) {
            expectations.push(crate::change::living_namespace(
                &self.thing.object.key.namespace,
            ));
        }
        if let Some(new) = self.new.as_ref().filter(|new| new.thing.is_none()) {
            said.insert(0, format!("roll out revision {}", new.revision));
        }
        let intent = if said.is_empty() {
            Intent::Status
        } else {
            Intent::Reconcile {
                what: said.join(", ").into(),
            }
        };
        decision.drafts.push(Draft {
            intent,
            expectations,
            changes,
        });
        decision
    }
}

/// Sets an annotation; whether that changed anything.
fn annotate(object: &mut Value, name: &str, value: &str) -> bool {
    if object["metadata"]["annotations"][name] == value {
        return false;
    }
    let metadata = crate::change::map_at(object, "metadata");
    if !metadata.get("annotations").is_some_and(Value::is_object) {
        metadata.insert("annotations".into(), json!({}));
    }
    metadata["annotations"][name] = json!(value);
    true
}
