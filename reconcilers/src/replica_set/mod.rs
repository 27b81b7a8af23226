//! ReplicaSet: as many pods as asked for, neither more nor fewer.
//!
//! Pods that match and have no controller are adopted, pods that no longer match are released, finished ones are replaced. Each pod is
//! made or deleted by a proposal of its own, so that its history says why, and expects the ReplicaSet as it was read: a scale that comes
//! between is never undone by an older decision. It writes its own status and nothing else of itself.

mod pod;
mod rank;
mod status;

use crate::change::{absent, delete, living_namespace, put, unchanged};
use crate::claim::claim;
use crate::events::{MOST_SINGLE, Severity, Tale, tell};
use crate::template::suffix;
use crate::world::{Kind, Pod, ReplicaSet, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use eventstore::{Intent, Key, Time};
use std::sync::Arc;

pub use pod::Admission;

/// How many pods one decision makes or deletes; what is left follows once these are folded.
const BURST: usize = 500;

pub const NAME: &str = "replicaset-controller";

#[derive(Debug)]
pub struct ReplicaSets {
    /// What a pod that no client sent through the API gets all the same.
    pub admission: Admission,
}

impl Reconciler for ReplicaSets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        if let Some(key) = touched.of(resource::REPLICA_SETS) {
            wakes.wake(key.clone());
        }
        for (thing, _) in touched.pods() {
            let namespace = &thing.object.key.namespace;
            match thing.meta.controller() {
                Some(owner) if &*owner.kind == "ReplicaSet" => {
                    wakes.wake(Key::new(
                        resource::REPLICA_SETS,
                        namespace.clone(),
                        owner.name.clone(),
                    ));
                }
                Some(_) => {}
                None => {
                    for candidate in world.list(resource::REPLICA_SETS, Some(namespace)) {
                        if matches!(&candidate.kind, Kind::ReplicaSet(set) if set.selector.matches(&thing.meta.labels))
                        {
                            wakes.wake(candidate.object.key.clone());
                        }
                    }
                }
            }
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::REPLICA_SETS, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        match &thing.kind {
            Kind::ReplicaSet(set) => self.decide_set(world, thing, set, now),
            Kind::Unreadable(why) => Decision::wait(Waiting::Unreadable { why: why.clone() }),
            _ => Decision::nothing(),
        }
    }
}

/// A pod of the set, with its view.
struct Held {
    thing: Arc<Thing>,
    pod: Pod,
}

impl ReplicaSets {
    fn decide_set(
        &self,
        world: &World,
        thing: &Arc<Thing>,
        set: &ReplicaSet,
        now: Time,
    ) -> Decision {
        let claim = claim(world, thing, resource::PODS, &set.selector);
        if !claim.drafts.is_empty() {
            // Whose pods these are has to be settled before they are counted.
            return Decision {
                drafts: claim.drafts,
                ..Decision::default()
            };
        }
        let held = claim.held.iter().filter_map(|thing| match &thing.kind {
            Kind::Pod(pod) => Some(Held {
                thing: thing.clone(),
                pod: (**pod).clone(),
            }),
            _ => None,
        });
        let (active, others): (Vec<Held>, Vec<Held>) =
            held.partition(|held| held.pod.active(&held.thing));
        let mut counted = status::count(set, thing, &active, &others, now);
        let mut decision = Decision::nothing();
        if thing.object.living() {
            let missing = set.replicas - active.len() as i64;
            if missing > 0 {
                decision.drafts = self.create(world, thing, missing as usize, now);
                counted.made(decision.drafts.len());
            } else if missing < 0 {
                let leaving: Vec<&Held> = rank::first_to_go(world, thing, &active)
                    .into_iter()
                    .take(missing.unsigned_abs().min(BURST as u64) as usize)
                    .collect();
                decision.drafts = scale_down(world, thing, &leaving, now);
                counted.left(set, thing, &leaving, now);
            }
        }
        // Counted as these drafts will have it, so that the status is written once; should one be rejected, the next decision says so.
        decision.drafts.extend(status::write(thing, &counted));
        if let Some(at) = counted.available_at {
            decision = decision.again(at);
        }
        if counted.available < set.replicas {
            decision = decision.waiting(Waiting::Pods {
                wanted: set.replicas,
                available: counted.available,
            });
        }
        decision
    }

    fn create(&self, world: &World, set: &Arc<Thing>, missing: usize, now: Time) -> Vec<Draft> {
        if !world.namespace_lives(&set.object.key.namespace) {
            return Vec::new();
        }
        let written = set.object.to_value();
        let mut drafts = Vec::new();
        let mut names = Vec::new();
        for number in 0..missing.min(BURST) {
            let key = free_name(world, set, number);
            let pod = pod::from_template(
                world,
                set,
                &written["spec"]["template"],
                &key.name,
                &self.admission,
            );
            names.push(key.name.to_string());
            drafts.push(Draft {
                intent: Intent::Reconcile {
                    what: format!("create a pod of {}", set.object.key.name).into(),
                },
                expectations: vec![
                    absent(&key),
                    unchanged(set),
                    living_namespace(&key.namespace),
                ],
                changes: vec![put(&key, &pod)],
            });
        }
        tell_of_pods(
            world,
            set,
            "SuccessfulCreate",
            "Created pod",
            &names,
            &mut drafts,
            now,
        );
        drafts
    }
}

fn scale_down(world: &World, set: &Arc<Thing>, leaving: &[&Held], now: Time) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut names = Vec::new();
    for held in leaving {
        let Some(change) = delete(&held.thing) else {
            continue;
        };
        names.push(held.thing.object.key.name.to_string());
        drafts.push(Draft {
            intent: Intent::Reconcile {
                what: format!("delete a pod of {}", set.object.key.name).into(),
            },
            expectations: vec![unchanged(&held.thing), unchanged(set)],
            changes: vec![change],
        });
    }
    tell_of_pods(
        world,
        set,
        "SuccessfulDelete",
        "Deleted pod",
        &names,
        &mut drafts,
        now,
    );
    drafts
}

/// One Event object a pod, beside the pod; with many, one for all of them beside the first.
fn tell_of_pods(
    world: &World,
    set: &Thing,
    reason: &str,
    what: &str,
    names: &[String],
    drafts: &mut [Draft],
    now: Time,
) {
    let tale = |message: String| Tale {
        component: NAME,
        severity: Severity::Normal,
        reason,
        message,
    };
    if names.len() <= MOST_SINGLE {
        for (name, draft) in names.iter().zip(drafts) {
            draft
                .changes
                .extend(tell(world, set, &tale(format!("{what}: {name}")), now));
        }
    } else if let Some(draft) = drafts.first_mut() {
        let message = format!(
            "{what}s: {} and {} more",
            names[..MOST_SINGLE].join(", "),
            names.len() - MOST_SINGLE
        );
        draft.changes.extend(tell(world, set, &tale(message), now));
    }
}

/// The set's name and five letters that derive from the set, the world it is decided in, and which of the pods it is.
fn free_name(world: &World, set: &Thing, number: usize) -> Key {
    let key = &set.object.key;
    // A name of a pod may be 63 letters long where it becomes a host name; the set's part gives way, as in Kubernetes.
    let base: String = key.name.chars().take(63 - 6).collect();
    let mut attempt = 0_u64;
    loop {
        let seed: [&[u8]; 4] = [
            set.object.stamps.uid.as_bytes(),
            &world.revision.to_be_bytes(),
            &(number as u64).to_be_bytes(),
            &attempt.to_be_bytes(),
        ];
        let pod = Key::new(
            resource::PODS,
            key.namespace.clone(),
            format!("{base}-{}", suffix(&seed)),
        );
        if world.thing(&pod).is_none() {
            return pod;
        }
        attempt += 1;
    }
}
