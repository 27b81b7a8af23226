//! How a decision is written: changes and expectations from what was read.
//!
//! An object is written by taking the current version's JSON and changing only one's own fields, expecting the revision that was read.
//! `metadata.managedFields` are the server's business and stay as they are.

use crate::world::{Kind, Thing, resource};
use eventstore::{Body, Change, Deletion, Expectation, Expected, Key, What};
use serde_json::{Map, Value, json};

/// The object's new version.
pub fn put(key: &Key, object: &Value) -> Change {
    Change {
        key: key.clone(),
        what: What::Put {
            body: cut(object),
            delete_grace_s: None,
        },
    }
}

/// The object's new version, and it is being deleted from now on.
pub fn put_deleted(key: &Key, object: &Value, grace_s: i64) -> Change {
    Change {
        key: key.clone(),
        what: What::Put {
            body: cut(object),
            delete_grace_s: Some(grace_s),
        },
    }
}

pub fn remove(key: &Key) -> Change {
    Change {
        key: key.clone(),
        what: What::Remove,
    }
}

fn cut(object: &Value) -> Body {
    Body::cut(object)
        .expect("what is written was read from the world, where it has a name, or was named here")
}

/// What a client's DELETE does to an object: it goes at once, or, when finalizers or a pod's grace hold it, it is being deleted.
/// None: it is being deleted already.
pub fn delete(thing: &Thing) -> Option<Change> {
    delete_with(thing, thing.object.to_value())
}

/// The same, with `object` as its last version: what the deletion says of itself in the status.
pub fn delete_with(thing: &Thing, mut object: Value) -> Option<Change> {
    if !thing.object.living() {
        return None;
    }
    let grace_s = match &thing.kind {
        Kind::Pod(pod) if pod.node.is_some() && !pod.finished() => pod.grace_s,
        Kind::Namespace(_) => Deletion::WITHOUT_GRACE,
        _ => 0,
    };
    if let Kind::Namespace(_) = &thing.kind {
        object["status"]["phase"] = json!("Terminating");
    }
    if grace_s <= 0 && thing.finalizers().next().is_none() {
        return Some(remove(&thing.object.key));
    }
    grow_older(&mut object);
    Some(put_deleted(&thing.object.key, &object, grace_s))
}

/// One more generation: what was asked for has changed. Kinds that have none keep none.
pub fn grow_older(object: &mut Value) {
    if let Some(generation) = object["metadata"]
        .get("generation")
        .and_then(Value::as_i64)
        .filter(|generation| *generation > 0)
    {
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

pub fn expect(key: Key, is: Expected) -> Expectation {
    Expectation { key, is }
}

/// The version that was read is still the last.
pub fn unchanged(thing: &Thing) -> Expectation {
    expect(
        thing.object.key.clone(),
        Expected::Revision(thing.object.revision()),
    )
}

pub fn absent(key: &Key) -> Expectation {
    expect(key.clone(), Expected::Absent)
}

/// The namespace may still be written into.
pub fn living_namespace(name: &str) -> Expectation {
    expect(Key::namespace_object(name), Expected::Living)
}

/// `{"apiVersion": …, "kind": …, "name": …, "uid": …, "controller": true, "blockOwnerDeletion": true}`.
pub fn controller_reference(owner: &Thing) -> Value {
    // A built-in kind's objects always say what they are; the names are a fallback for bodies that were written without.
    let (api_version, kind) = match &*owner.object.key.resource {
        resource::DEPLOYMENTS => ("apps/v1", "Deployment"),
        resource::REPLICA_SETS => ("apps/v1", "ReplicaSet"),
        resource::SERVICES => ("v1", "Service"),
        _ => (&*owner.meta.api_version, &*owner.meta.kind),
    };
    json!({
        "apiVersion": api_version, "kind": kind, "name": &*owner.object.key.name, "uid": owner.object.uid().to_string(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The map at `object[field]`, made if it is not there.
pub fn map_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object[field].is_object() {
        object[field] = Value::Object(Map::new());
    }
    object[field]
        .as_object_mut()
        .expect("it was made a map just now")
}

/// Sets a number, or leaves the field out when it is 0, as Kubernetes' `omitempty` does.
pub fn set_unless_zero(map: &mut Map<String, Value>, field: &str, number: i64) {
    if number == 0 {
        map.shift_remove(field);
    } else {
        map.insert(field.to_owned(), json!(number));
    }
}
