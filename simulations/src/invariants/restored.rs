//! What is restored is what was: a new cluster made from an archive, and desired state written forward to some moment.
//!
//! The archive is written as the run goes, by whichever server, and restored by what `reckon restore --from` calls, into an object store and
//! a directory in memory. Objects are compared whole: all of them that is desired, of every kind.

use super::Violation;
use crate::sides::{Chance, SimClock, SimDisks};
use eventstore::{Key, Object};
use eventstore_disk::{Store, StoreConfig};
use serde_json::{Value, json};
use server::archive::restore::{Asked, Outside, Restored, restore_in};
use server::archive::{Archive, OfStore, write};
use std::collections::BTreeMap;

const NAME: &str = "restored is past";
/// Whoever observes them makes them.
const OBSERVED: [&str; 4] = [
    "coordination.k8s.io/leases",
    "discovery.k8s.io/endpointslices",
    "events",
    "nodes",
];
/// What the cluster makes itself, again where a restore takes it away: resource and name, or all of a resource.
const MADE_AGAIN: [(&str, Option<&str>); 4] = [
    ("configmaps", Some("kube-root-ca.crt")),
    ("serviceaccounts", Some("default")),
    ("services", Some("kubernetes")),
    ("namespaces", None),
];
/// The Deployment controller's count of rollouts, of which a restore is one more.
const ROLLOUT: &str = "deployment.kubernetes.io/revision";
/// Before compression: a run has several segments even if it archives once.
const SEGMENT_BYTES: usize = 1 << 20;
const GAP: u64 = 1_000;

fn violated(what: impl ToString) -> Violation {
    Violation::new(NAME, what.to_string())
}

/// What was desired, by key.
pub type Desired = BTreeMap<Key, Value>;

/// Brings the archive up to what a server has.
pub async fn archive(archive: &Archive, store: &Store) -> Result<(), Violation> {
    let source = OfStore {
        store: store.clone(),
        segment_bytes: SEGMENT_BYTES,
    };
    let written = write(archive, &source, None, |_| {}).await;
    written.map(drop).map_err(violated)
}

/// Makes a new cluster's state of the archive as of a revision, and compares it with what the store has of it.
pub async fn through_the_archive(
    archive: &Archive,
    store: &Store,
    at: u64,
    chance: Chance,
) -> Result<(), Violation> {
    let view = store.view();
    let directory = SimDisks::new(chance.clone()).directory();
    let outside = Outside {
        directory: directory.clone(),
        clock: &SimClock::new(tokio::time::Instant::now()),
        entropy: &chance,
    };
    let asked = Asked {
        cluster: None,
        at: Some(at.to_string()),
        gap: GAP,
        user: "operator".to_owned(),
    };
    let made = restore_in(&outside, archive, &asked).await;
    let made: Restored = made.map_err(violated)?;
    let whole = (made.before, made.before_revision, &*made.before_digest)
        == (view.cluster, view.revision, &*view.digest.to_string());
    if !whole || made.cluster == view.cluster || made.revision < view.revision + GAP {
        return Err(violated(format!(
            "the archive of {} up to revision {}, with the digest {}, became {made:?}",
            view.cluster, view.revision, view.digest
        )));
    }
    let config = StoreConfig::default();
    let restored = Store::open(directory, "state", config).map_err(violated)?;
    let verified = restored.verify(1..=made.revision, |_| ());
    verified.map_err(violated)?;
    same(
        &desired_at(store, at)?,
        &desired_at(&restored, made.revision)?,
    )?;
    nothing_observed(store, at, &restored)
}

/// Of what was observed nothing is there, nor what a controller makes of it; what runs nowhere any more is bound to nothing.
fn nothing_observed(store: &Store, at: u64, restored: &Store) -> Result<(), Violation> {
    let (before, now) = (store.view(), restored.view());
    for object in now.objects().filter(|object| !object.key.hidden()) {
        let (key, value) = (&object.key, object.to_value());
        let then = store.object_at(key, at).map_err(violated)?;
        let then = then.filter(|then| then.living());
        let pod = &*key.resource == "pods";
        let uid = then.as_ref().map(|then| then.uid());
        let last = before.get(key).filter(|last| last.living());
        let lived_on = last.is_some_and(|last| Some(last.uid()) == uid);
        let wrong = if OBSERVED.contains(&&*key.resource) {
            "is observed"
        } else if then.is_none() {
            "was not there"
        } else if pod && has_controller(&value) {
            "is its controller's"
        } else if pod && (value["spec"].get("nodeName").is_some() || Some(object.uid()) == uid) {
            "is bound, or has its old uid"
        } else if !pod && lived_on && Some(object.uid()) != uid {
            "lived on and has another uid"
        } else {
            continue;
        };
        return Err(violated(format!("{key} {wrong}: {value}")));
    }
    Ok(())
}

/// What is to be restored of every object as of a revision.
pub fn desired_at(store: &Store, revision: u64) -> Result<Desired, Violation> {
    let view = store.view();
    let resources = view
        .resources()
        .filter(|resource| !resource.starts_with('~') && !OBSERVED.contains(&resource.as_str()));
    let mut all = Desired::new();
    for resource in resources {
        let page = store.list_at(resource, None, revision, .., usize::MAX);
        for object in page.map_err(violated)?.objects {
            if let Some(desired) = desired(&object) {
                all.insert(object.key.clone(), desired);
            }
        }
    }
    Ok(all)
}

/// None: it was being deleted, which is nobody's wish, or what has made it makes it again.
fn desired(object: &Object) -> Option<Value> {
    let mut value = object.to_value();
    if !object.living() || has_controller(&value) {
        return None;
    }
    value.as_object_mut()?.shift_remove("status");
    let metadata = value["metadata"].take();
    let mut kept = json!({});
    // `managedFields` say who wrote it last, and who wrote the same again is not asked of.
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if !metadata[field].is_null() {
            kept[field] = metadata[field].clone();
        }
    }
    if let Some(annotations) = kept["annotations"].as_object_mut() {
        annotations.shift_remove(ROLLOUT);
    }
    for owner in kept["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = Value::Null;
    }
    if let Some(kept) = kept.as_object_mut() {
        kept.retain(|_, value| !matches!(value, Value::Null) && *value != json!({}));
    }
    value["metadata"] = kept;
    // Where it runs, and under which address it is reached, is of now.
    let of_now: &[&str] = match &*object.key.resource {
        "pods" => &["nodeName"],
        "services" => &["clusterIP", "clusterIPs"],
        _ => &[],
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        of_now
            .iter()
            .for_each(|field| drop(spec.shift_remove(*field)));
    }
    Some(value)
}

fn has_controller(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}

/// The same objects, whole.
pub fn same(then: &Desired, now: &Desired) -> Result<(), Violation> {
    let made_again = |key: &Key| {
        let mut rows = MADE_AGAIN.iter();
        rows.any(|(resource, name)| {
            *resource == &*key.resource && name.is_none_or(|name| name == &*key.name)
        })
    };
    let differs = |key: &&Key| match (then.get(*key), now.get(*key)) {
        (None, Some(_)) => !made_again(key),
        (then, now) => then != now,
    };
    match then.keys().chain(now.keys()).find(differs) {
        None => Ok(()),
        Some(key) => Err(violated(format!(
            "{key} was {} and is {}",
            shown(then.get(key)),
            shown(now.get(key))
        ))),
    }
}

fn shown(object: Option<&Value>) -> String {
    object.map_or_else(|| "not there".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(rows: &[(&str, &str, Value)]) -> Desired {
        let row = |(resource, name, value): &(&str, &str, Value)| {
            (Key::new(*resource, "default", *name), value.clone())
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn one_that_is_there_or_not_or_other_than_it_was_is_told() {
        let map = |value: &str| ("configmaps", "one", json!({"data": {"value": value}}));
        let labelled = json!({"metadata": {"labels": {"a": "b"}}, "data": {"value": "1"}});
        let made = ("configmaps", "kube-root-ca.crt", json!({"data": {}}));
        let other = (
            "configmaps",
            "kube-root-ca.crt",
            json!({"data": {"a": "b"}}),
        );
        // Rows: (then, now, the same)
        for (then, now, right) in [
            (vec![], vec![], true),
            (vec![map("1")], vec![map("1")], true),
            (vec![map("1")], vec![map("2")], false),
            (vec![map("1")], vec![], false),
            (vec![], vec![map("1")], false),
            (vec![map("1")], vec![("configmaps", "one", labelled)], false),
            (vec![map("1")], vec![("secrets", "one", map("1").2)], false),
            (vec![], vec![made.clone()], true),
            (vec![made.clone()], vec![other], false),
            (vec![made], vec![], false),
        ] {
            let held = same(&objects(&then), &objects(&now));
            assert_eq!(held.is_ok(), right, "{then:?} {now:?}: {held:?}");
        }
    }
}
