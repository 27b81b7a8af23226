//! What a controller's selector lays hold of: orphans that match are adopted, its own that no longer match are released.
//!
//! Shared by ReplicaSet (pods) and Deployment (replica sets).

use crate::change::{controller_reference, expect, map_at, put, unchanged};
use crate::world::{Kind, Selector, Thing};
use crate::{Draft, World};
use eventstore::{Expected, Intent};
use serde_json::{Value, json};
use std::sync::Arc;

/// What it holds now, in the order of keys, and what to propose so that this is so.
#[derive(Debug, Default)]
pub struct Claim {
    pub held: Vec<Arc<Thing>>,
    pub drafts: Vec<Draft>,
}

/// How many adoptions and releases one decision proposes.
const MOST_CLAIMS: usize = 200;

pub fn claim(world: &World, controller: &Thing, resource: &str, selector: &Selector) -> Claim {
    let key = &controller.object.key;
    let mut claim = Claim::default();
    for thing in world.controlled(controller.object.uid(), resource) {
        if thing.object.key.namespace != key.namespace {
            continue;
        }
        if selector.matches(&thing.meta.labels) {
            claim.held.push(thing.clone());
        } else if controller.object.living()
            && thing.object.living()
            && claim.drafts.len() < MOST_CLAIMS
        {
            claim.drafts.push(release(controller, thing));
        }
    }
    if controller.object.living() && !selector.is_empty() {
        let orphans = world.orphans(resource, &key.namespace);
        let wanted =
            orphans.filter(|thing| selector.matches(&thing.meta.labels) && may_be_adopted(thing));
        claim.drafts.extend(
            wanted
                .take(MOST_CLAIMS)
                .map(|thing| adopt(controller, thing)),
        );
    }
    claim
}

fn may_be_adopted(thing: &Thing) -> bool {
    match &thing.kind {
        Kind::Pod(pod) => pod.active(thing),
        _ => thing.object.living(),
    }
}

fn adopt(controller: &Thing, thing: &Thing) -> Draft {
    let mut object = thing.object.to_value();
    let metadata = map_at(&mut object, "metadata");
    let owners = metadata
        .entry("ownerReferences")
        .or_insert_with(|| json!([]));
    match owners.as_array_mut() {
        Some(owners) => owners.push(controller_reference(controller)),
        None => *owners = json!([controller_reference(controller)]),
    }
    let lives = expect(controller.object.key.clone(), Expected::Living);
    let same = expect(
        controller.object.key.clone(),
        Expected::Uid(controller.object.uid()),
    );
    Draft {
        intent: Intent::Reconcile {
            what: format!("adopt {}", thing.object.key.name).into(),
        },
        expectations: vec![unchanged(thing), lives, same],
        changes: vec![put(&thing.object.key, &object)],
    }
}

fn release(controller: &Thing, thing: &Thing) -> Draft {
    let uid = controller.object.uid().to_string();
    let mut object = thing.object.to_value();
    if let Some(owners) = object["metadata"]
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
    {
        owners.retain(|owner| owner["uid"] != uid);
    }
    Draft {
        intent: Intent::Reconcile {
            what: format!("release {}", thing.object.key.name).into(),
        },
        expectations: vec![unchanged(thing)],
        changes: vec![put(&thing.object.key, &object)],
    }
}
