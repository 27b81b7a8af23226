//! What is restored is what was: a database made from a backup, and desired state written forward to some moment.

use super::Violation;
use crate::sides::{Chance, SimDisks};
use eventstore::{Key, Object};
use eventstore_disk::backup::{LoadError, Loader, Segment};
use eventstore_disk::{Store, StoreConfig};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "restored is past";
/// A controller makes it in each namespace, again where a restore takes it away.
const MADE_AGAIN: &str = "kube-root-ca.crt";
/// Of a segment, before compression: many a run has several.
const SEGMENT_BYTES: usize = 1 << 20;

fn violated(what: impl ToString) -> Violation {
    Violation::new(NAME, what.to_string())
}

/// All of a store's history goes through a backup's files and comes out the same.
pub fn through_a_backup(store: &Store, chance: Chance) -> Result<(), Violation> {
    let view = store.view();
    if store.horizon() > 0 {
        return Err(violated(
            "nothing was pruned, and yet history has a horizon",
        ));
    }
    let disks = SimDisks::new(chance);
    let directory = disks.directory();
    let config = StoreConfig::default();
    let mut loader = Loader::new(&*directory, "state", &config, []).map_err(violated)?;
    let mut after = 0;
    while after < view.revision {
        let segment = store
            .segment_after(after, SEGMENT_BYTES)
            .map_err(violated)?;
        let Some((head, file)) = segment else { break };
        after = head.last;
        let loaded = Segment::read(&file)
            .map_err(|error| LoadError::Wrong(error.to_string()))
            .and_then(|segment| loader.segment(segment));
        loaded.map_err(violated)?;
    }
    let loaded = loader.finish().map_err(violated)?;
    let same = loaded.digest == store.view().digest && loaded.objects().eq(store.view().objects());
    if !same {
        return Err(violated(format!(
            "a backup up to revision {} has the digest {}, the store {}",
            loaded.revision, loaded.digest, view.digest
        )));
    }
    Ok(())
}

/// What clients keep, as it was at a revision: nothing but a restore and they themselves change it.
pub fn kept_at(store: &Store, revision: u64) -> Result<BTreeMap<Key, Arc<Object>>, Violation> {
    let mut kept = BTreeMap::new();
    let page = store.list_at("configmaps", None, revision, .., usize::MAX);
    for object in page.map_err(violated)?.objects {
        if &*object.key.name != MADE_AGAIN {
            kept.insert(object.key.clone(), object);
        }
    }
    Ok(kept)
}

/// The same objects with the same content; those that were being deleted are nobody's wish.
pub fn same(
    then: &BTreeMap<Key, Arc<Object>>,
    now: &BTreeMap<Key, Arc<Object>>,
) -> Result<(), Violation> {
    let of = |objects: &BTreeMap<Key, Arc<Object>>| -> BTreeMap<Key, serde_json::Value> {
        let living = objects.iter().filter(|(_, object)| object.living());
        living
            .map(|(key, object)| (key.clone(), object.to_value()["data"].clone()))
            .collect()
    };
    let (then, now) = (of(then), of(now));
    let differs = then
        .keys()
        .chain(now.keys())
        .find(|key| then.get(key) != now.get(key));
    match differs {
        None => Ok(()),
        Some(key) => Err(violated(format!(
            "{key} was {:?} and is {:?}",
            then.get(key),
            now.get(key)
        ))),
    }
}
