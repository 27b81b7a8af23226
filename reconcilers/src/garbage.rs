//! Garbage collection by owner references: what no living owner holds goes, and an owner that is deleted in the foreground waits for its
//! dependents, or leaves them behind as orphans, as its finalizers say.
//!
//! An owner is known by its uid, so that one made again under the same name owns nothing of the one before.
//! Source: Kubernetes' documentation, "Garbage Collection"; pkg/controller/garbagecollector.

use crate::change::{delete, grow_older, put, put_deleted, remove, unchanged};
use crate::world::{Kind, Owner, Thing};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Change, Intent, Key, Time};
use serde_json::{Value, json};
use std::sync::Arc;

pub const NAME: &str = "generic-garbage-collector";

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How many dependents one decision of an owner changes; more follow in the next.
const MOST_ORPHANS: usize = 500;

#[derive(Debug)]
pub struct Garbage;

impl Reconciler for Garbage {
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
        // Its owners may be waiting for it, or for one owner less to hold it.
        for owner in before.iter().flat_map(|before| &before.meta.owners) {
            if let Some(owner) = world
                .of_uid(owner.uid)
                .filter(|owner| !owner.object.living())
            {
                wakes.wake(owner.object.key.clone());
            }
        }
        match (before, after) {
            (_, None) => {
                let Some(before) = before else { return };
                world
                    .dependents(before.object.uid())
                    .for_each(|dependent| wakes.wake(dependent.object.key.clone()));
            }
            (before, Some(after)) => {
                let shape = |thing: &Thing| {
                    (
                        thing.object.uid(),
                        thing.meta.owners.clone(),
                        thing.meta.finalizers.clone(),
                        thing.object.living(),
                    )
                };
                let same = before
                    .as_ref()
                    .is_some_and(|before| shape(before) == shape(after));
                if !same && (!after.meta.owners.is_empty() || !after.object.living()) {
                    wakes.wake(key.clone());
                }
                let gone = before.as_ref().is_some_and(|before| {
                    before.object.uid() != after.object.uid() || before.object.living()
                });
                if gone && !after.object.living() {
                    world
                        .dependents(after.object.uid())
                        .for_each(|dependent| wakes.wake(dependent.object.key.clone()));
                }
            }
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        for thing in world
            .everything()
            .filter(|thing| !thing.meta.owners.is_empty() || !thing.object.living())
        {
            wakes.wake(thing.object.key.clone());
        }
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, _: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        if thing.object.living() {
            return hold_or_collect(world, thing);
        }
        if thing.meta.has_finalizer(ORPHAN) {
            return orphan(world, thing);
        }
        if thing.meta.has_finalizer(FOREGROUND) {
            return wait_for_dependents(world, thing);
        }
        Decision::nothing()
    }
}

/// What there is of an owner that a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is there and holds its dependents.
    Holds,
    /// It is there, and waits for this dependent to go.
    Waits,
    /// There is no such object.
    Gone,
}

fn state(world: &World, dependent: &Thing, owner: &Owner) -> State {
    let namespace = &dependent.object.key.namespace;
    // An owner lies in the dependent's namespace or in none; one in another namespace counts as not there.
    let found = world.of_uid(owner.uid).filter(|found| {
        found.object.key.namespace.is_empty() || found.object.key.namespace == *namespace
    });
    match found {
        None => State::Gone,
        Some(found) if !found.object.living() && found.meta.has_finalizer(FOREGROUND) => {
            State::Waits
        }
        Some(_) => State::Holds,
    }
}

fn hold_or_collect(world: &World, thing: &Arc<Thing>) -> Decision {
    if thing.meta.owners.is_empty() {
        return Decision::nothing();
    }
    let states: Vec<State> = thing
        .meta
        .owners
        .iter()
        .map(|owner| state(world, thing, owner))
        .collect();
    if states.iter().all(|state| *state == State::Holds) {
        return Decision::nothing();
    }
    let lacking: Vec<&Owner> = thing
        .meta
        .owners
        .iter()
        .zip(&states)
        .filter(|(_, state)| **state != State::Holds)
        .map(|(owner, _)| owner)
        .collect();
    let owner = lacking.first().map_or_else(String::new, |owner| {
        format!("{}/{}", owner.kind, owner.name)
    });
    let change = if states.contains(&State::Holds) {
        // Another owner holds it: only the references to those that are gone, or wait for it, go.
        Some(without_owners(thing, &lacking))
    } else if states.contains(&State::Waits)
        && world.dependents(thing.object.uid()).next().is_some()
        && !matches!(thing.kind, Kind::Namespace(_))
    {
        // It is waited for, and has dependents of its own: they go first, too. A namespace waits for what lies in it anyway.
        Some(delete_in_foreground(thing))
    } else {
        delete(thing)
    };
    let changes: Vec<Change> = change.into_iter().collect();
    Decision::propose(Draft {
        intent: Intent::Collect {
            owner: owner.into(),
        },
        expectations: vec![unchanged(thing)],
        changes,
    })
}

fn without_owners(thing: &Thing, lacking: &[&Owner]) -> Change {
    let mut object = thing.object.to_value();
    let uids: Vec<String> = lacking.iter().map(|owner| owner.uid.to_string()).collect();
    if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|owner| {
            owner["uid"]
                .as_str()
                .is_none_or(|uid| !uids.iter().any(|lacking| lacking == uid))
        });
    }
    put(&thing.object.key, &object)
}

fn delete_in_foreground(thing: &Thing) -> Change {
    let mut object = thing.object.to_value();
    if !thing.meta.has_finalizer(FOREGROUND) {
        let metadata = crate::change::map_at(&mut object, "metadata");
        match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            Some(finalizers) => finalizers.push(json!(FOREGROUND)),
            None => {
                metadata.insert("finalizers".into(), json!([FOREGROUND]));
            }
        }
    }
    grow_older(&mut object);
    put_deleted(&thing.object.key, &object, 0)
}

/// Takes the owner's references out of its dependents, then its own finalizer.
fn orphan(world: &World, owner: &Arc<Thing>) -> Decision {
    let uid = owner.object.uid();
    let mut drafts = Vec::new();
    for dependent in world.dependents(uid).take(MOST_ORPHANS) {
        let held: Vec<&Owner> = dependent
            .meta
            .owners
            .iter()
            .filter(|reference| reference.uid == uid)
            .collect();
        drafts.push(Draft {
            intent: Intent::Reconcile {
                what: format!("orphan {}", dependent.object.key.name).into(),
            },
            expectations: vec![unchanged(dependent)],
            changes: vec![without_owners(dependent, &held)],
        });
    }
    if drafts.is_empty() {
        drafts.push(without_finalizer(owner, ORPHAN));
    }
    Decision {
        drafts,
        ..Decision::default()
    }
}

fn wait_for_dependents(world: &World, owner: &Arc<Thing>) -> Decision {
    let uid = owner.object.uid();
    let blocks = |thing: &&Arc<Thing>| {
        thing
            .meta
            .owners
            .iter()
            .any(|reference| reference.uid == uid && reference.block_owner_deletion)
    };
    let left = world.dependents(uid).filter(blocks).count();
    if left > 0 {
        return Decision::wait(Waiting::Dependents { left });
    }
    Decision::propose(without_finalizer(owner, FOREGROUND))
}

/// The owner without a finalizer; when that was the last thing to hold it, it goes.
fn without_finalizer(owner: &Thing, finalizer: &str) -> Draft {
    let key = &owner.object.key;
    let grace_left = owner
        .object
        .stamps
        .deletion
        .is_some_and(|deletion| deletion.grace_s > 0);
    let (intent, change) = if owner.finalizers().all(|other| &**other == finalizer) && !grace_left {
        (
            Intent::Remove {
                reason: format!("the finalizer {finalizer} is done").into(),
            },
            remove(key),
        )
    } else {
        let mut object = owner.object.to_value();
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|other| other != finalizer);
        }
        (
            Intent::Reconcile {
                what: format!("take off the finalizer {finalizer}").into(),
            },
            put(key, &object),
        )
    };
    Draft {
        intent,
        expectations: vec![unchanged(owner)],
        changes: vec![change],
    }
}
