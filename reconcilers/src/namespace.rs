//! A namespace's end: all that lies in it is deleted, finalizers and graces respected; when nothing is left, its finalizer is taken off and
//! it goes. Nothing new can come into it, for every creation expects its namespace to be living.
//!
//! What is left, and what holds it, is told in the namespace's conditions. Source: pkg/controller/namespace, its conditions.

use crate::change::{delete, put, remove, unchanged};
use crate::conditions::{self, Condition};
use crate::world::{Kind, Namespace, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Intent, Key, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const NAME: &str = "namespace-controller";

/// Of `spec.finalizers`: ours.
const FINALIZER: &str = "kubernetes";

/// How many objects one decision deletes; more follow once these are folded.
const MOST: usize = 1000;

#[derive(Debug)]
pub struct Namespaces;

impl Reconciler for Namespaces {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        let Touched::Object { key, .. } = touched else {
            return;
        };
        if &*key.resource == resource::NAMESPACES {
            wakes.wake(key.clone());
        } else if !key.namespace.is_empty() && !world.namespace_lives(&key.namespace) {
            wakes.wake(Key::namespace_object(key.namespace.clone()));
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        let ending = world
            .list(resource::NAMESPACES, None)
            .filter(|thing| !thing.object.living());
        ending.for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        let Kind::Namespace(namespace) = &thing.kind else {
            return Decision::nothing();
        };
        if thing.object.living() {
            return Decision::nothing();
        }
        let contents: Vec<&Arc<Thing>> = world.contents(&key.name).collect();
        if contents.is_empty() {
            return finish(thing, namespace);
        }
        let mut drafts = Vec::new();
        for thing in contents
            .iter()
            .filter(|thing| thing.object.living())
            .take(MOST)
        {
            let Some(change) = delete(thing) else {
                continue;
            };
            let intent = Intent::Collect {
                owner: key.to_string().into(),
            };
            drafts.push(Draft {
                intent,
                expectations: vec![unchanged(thing)],
                changes: vec![change],
            });
        }
        // Its conditions tell of what does not go at once; while something still has to be deleted they would only flicker.
        if drafts.is_empty() {
            drafts.extend(describe(thing, &contents, now));
        }
        Decision {
            drafts,
            waiting: Some(Waiting::Content {
                left: contents.len(),
            }),
            again_at: None,
        }
    }
}

/// Nothing is left: our finalizer goes, and with the last finalizer the namespace.
fn finish(thing: &Arc<Thing>, namespace: &Namespace) -> Decision {
    let key = &thing.object.key;
    let others: Vec<String> = thing
        .finalizers()
        .map(ToString::to_string)
        .filter(|name| name != FINALIZER)
        .collect();
    if others.is_empty() {
        let intent = Intent::Remove {
            reason: "nothing is left in it".into(),
        };
        return Decision::propose(Draft {
            intent,
            expectations: vec![unchanged(thing)],
            changes: vec![remove(key)],
        });
    }
    let waiting = Waiting::Finalizers { finalizers: others };
    if !namespace
        .finalizers
        .iter()
        .any(|finalizer| &**finalizer == FINALIZER)
    {
        return Decision::wait(waiting);
    }
    let mut object = thing.object.to_value();
    if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let intent = Intent::Reconcile {
        what: "take off the finalizer kubernetes".into(),
    };
    Decision::propose(Draft {
        intent,
        expectations: vec![unchanged(thing)],
        changes: vec![put(key, &object)],
    })
    .waiting(waiting)
}

fn describe(thing: &Arc<Thing>, contents: &[&Arc<Thing>], now: Time) -> Option<Draft> {
    let mut by_resource: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_finalizer: BTreeMap<String, usize> = BTreeMap::new();
    for thing in contents {
        *by_resource
            .entry(dotted(&thing.object.key.resource))
            .or_insert(0) += 1;
        for finalizer in &thing.meta.finalizers {
            *by_finalizer.entry(finalizer.to_string()).or_insert(0) += 1;
        }
    }
    let remaining: Vec<String> = by_resource
        .iter()
        .map(|(name, count)| format!("{name} has {count} resource instances"))
        .collect();
    let holding: Vec<String> = by_finalizer
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let mut object = thing.object.to_value();
    let wanted = [
        Condition::new(
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        Condition::new(
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        Condition::new(
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        Condition::new(
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", remaining.join(", ")),
        ),
        if holding.is_empty() {
            Condition::new(
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        } else {
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                holding.join(", ")
            );
            Condition::new(
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                message,
            )
        },
    ];
    let mut changed = false;
    for condition in &wanted {
        changed |= conditions::set(&mut object["status"], condition, &Value::Null, now);
    }
    if object["status"]["phase"] != "Terminating" {
        object["status"]["phase"] = json!("Terminating");
        changed = true;
    }
    let change = put(&thing.object.key, &object);
    changed.then(|| Draft {
        intent: Intent::Status,
        expectations: vec![unchanged(thing)],
        changes: vec![change],
    })
}

/// `apps/deployments` as Kubernetes says it here: `deployments.apps`; the core group's end with the dot.
fn dotted(resource: &str) -> String {
    match resource.split_once('/') {
        Some((group, plural)) => format!("{plural}.{group}"),
        None => format!("{resource}."),
    }
}
