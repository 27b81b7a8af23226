//! Random histories against a naive model: a list of all changes, searched from end to end.

use crate::backup::Files;
use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Act, Change, Horizons, Key, Object, Proposal, Text, Time, What};
use eventstore_disk::{Pruned, ReadError, Store, StoreConfig, Watch, WatchRequest};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// All that ever changed, and when events ended.
#[derive(Default)]
struct Model {
    changes: Vec<(Key, u64, Option<Arc<Object>>)>,
    /// (first, last, time)
    events: Vec<(u64, u64, Time)>,
}

impl Model {
    fn add(&mut self, applied: &[eventstore::Applied]) {
        for (event, _) in applied.iter().flat_map(|applied| &applied.events) {
            self.events.push((
                event.envelope.first,
                event.envelope.last,
                event.envelope.time,
            ));
            self.changes.extend(
                event
                    .objects
                    .iter()
                    .map(|folded| (folded.key.clone(), folded.revision, folded.after.clone())),
            );
        }
    }

    fn at(&self, revision: u64) -> BTreeMap<Key, Arc<Object>> {
        let mut objects = BTreeMap::new();
        for (key, _, after) in self.changes.iter().filter(|(_, at, _)| *at <= revision) {
            match after {
                Some(object) => objects.insert(key.clone(), object.clone()),
                None => objects.remove(key),
            };
        }
        objects
    }

    /// What a watch has to deliver: revisions, and whether the object is there then.
    fn watched(&self, request: &WatchRequest) -> Vec<(Key, u64, bool)> {
        let mine = self.changes.iter().filter(|(key, revision, _)| {
            *revision > request.from
                && key.resource == request.resource
                && request
                    .namespace
                    .as_ref()
                    .is_none_or(|namespace| key.namespace == *namespace)
                && request.name.as_ref().is_none_or(|name| key.name == *name)
        });
        mine.map(|(key, revision, after)| (key.clone(), *revision, after.is_some()))
            .collect()
    }

    fn is_end(&self, revision: u64) -> bool {
        revision == 0 || self.events.iter().any(|(_, last, _)| *last == revision)
    }
}

/// (resource, namespace, name, what)
type Put = (u8, u8, u8, u8);
/// A watch: (opened before group, resource, namespace, name, revisions back, batch)
type Opened = (usize, u8, Option<u8>, Option<u8>, u64, usize);

#[derive(Clone, Debug)]
struct Script {
    /// Groups of proposals of changes.
    groups: Vec<Vec<Vec<Put>>>,
    later_ms: Vec<i64>,
    watches: Vec<Opened>,
    /// A look back: (part of the whole, limit, start).
    looks: Vec<(u8, usize, u8)>,
    reopen: usize,
    /// How far history is pruned: a part of the whole, and of one resource's, twice; how many events a step looks at.
    prunes: [(u8, u8); 2],
    prune_events: usize,
}

const GROUPS: usize = 40;

fn script() -> impl Strategy<Value = Script> {
    let change = (0..3u8, 0..3u8, 0..5u8, 0..8u8);
    let proposal = proptest::collection::vec(change, 0..5);
    let groups = proptest::collection::vec(proptest::collection::vec(proposal, 1..4), GROUPS);
    let watch = (
        0..GROUPS,
        0..3u8,
        proptest::option::of(0..3u8),
        proptest::option::weighted(0.2, 0..5u8),
        0..40u64,
        1..6usize,
    );
    let watches = proptest::collection::vec(watch, 8);
    let looks = proptest::collection::vec((any::<u8>(), 1..12usize, any::<u8>()), 24);
    (
        groups,
        proptest::collection::vec(0..1_500i64, GROUPS),
        watches,
        looks,
        0..GROUPS,
        any::<[(u8, u8); 2]>(),
        1..60usize,
    )
        .prop_map(
            |(groups, later_ms, watches, looks, reopen, prunes, prune_events)| Script {
                groups,
                later_ms,
                watches,
                looks,
                reopen,
                prunes,
                prune_events,
            },
        )
}

fn resource(number: u8) -> &'static str {
    ["configmaps", "apps/deployments", "nodes"][usize::from(number)]
}

fn key((of, namespace, name): (u8, u8, u8)) -> Key {
    // Names and namespaces that are one another's beginnings, for those are what orders go wrong by.
    let names = ["a", "a-a", "a.a", "aa", "b"];
    let namespaces = if of == 2 {
        ["", "", ""]
    } else {
        ["n", "n-n", "nn"]
    };
    Key::new(
        resource(of),
        namespaces[usize::from(namespace)],
        names[usize::from(name)],
    )
}

fn proposal_of(number: u128, changes: &[Put], store: &Store) -> Proposal {
    let mut living: BTreeMap<Key, bool> = BTreeMap::new();
    let mut all = Vec::new();
    for (of, namespace, name, what) in changes {
        let key = key((*of, *namespace, *name));
        let lives = *living
            .entry(key.clone())
            .or_insert_with_key(|key| store.view().get(key).is_some());
        let removes = lives && *what < 4;
        living.insert(key.clone(), !removes);
        let body = eventstore::Body::cut(
            &serde_json::json!({"metadata": {"name": &*key.name}, "value": number.to_string()}),
        );
        let what = if removes {
            What::Remove
        } else {
            What::Put {
                body: body.unwrap(),
                delete_grace_s: None,
            }
        };
        all.push(Change { key, what });
    }
    proposal(number, Act::Objects(all))
}

fn drain(watch: &mut Watch, batch: usize, store: &Store, model: &Model) -> Vec<(Key, u64, bool)> {
    let newest = store.view().revision;
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        match watch.ready(batch).unwrap() {
            Some(some) => {
                assert!(some.changes.len() <= batch && !some.changes.is_empty());
                assert!(
                    !some.whole || model.is_end(some.revision),
                    "{} is no event's end",
                    some.revision
                );
                assert!(some.whole || some.changes.last().unwrap().revision == some.revision);
                for change in &some.changes {
                    assert_eq!(change.object().revision(), change.revision);
                    assert_eq!(
                        change.after.is_some(),
                        change.kind() != eventstore_disk::ChangeKind::Deleted
                    );
                    let before = change.before.as_ref().map(|before| before.revision());
                    let known = model
                        .at(change.revision - 1)
                        .get(&change.key)
                        .map(|object| object.revision());
                    assert_eq!(before, known, "{} at {}", change.key, change.revision);
                    seen.push((change.key.clone(), change.revision, change.after.is_some()));
                }
            }
            None if watch.bookmark() == Some(newest) => return seen,
            None => {}
        }
    }
    panic!("the watch never ends: {watch:?}");
}

fn run(script: &Script) {
    let folder = tempfile::tempdir().unwrap();
    // A small ring, key sets often, and few changes without their records, so that all ways are gone.
    let config = StoreConfig {
        ring_events: 7,
        few_births: 5,
        most_warm: 7,
        ..StoreConfig::default()
    };
    let opened = directory(folder.path());
    let mut kept = Kept::open(&opened, config.clone());
    let mut model = Model::default();
    model.events.push((1, 1, START));
    let mut watches = Vec::new();
    for (number, group) in script.groups.iter().enumerate() {
        if number == script.reopen {
            let (view, clock) = (kept.store.view(), kept.clock);
            kept.store.flush().unwrap();
            watches.clear();
            drop(kept);
            kept = Kept::open(&opened, config.clone());
            kept.clock = clock;
            let again = kept.store.view();
            assert_eq!(
                (again.digest, again.position, again.round),
                (view.digest, view.position, view.round)
            );
            assert!(again.objects().eq(view.objects()) && again.resources().eq(view.resources()));
        }
        for (at, of, namespace, name, back, batch) in &script.watches {
            if *at == number {
                let request = WatchRequest {
                    resource: resource(*of).into(),
                    namespace: namespace.map(|namespace| key((*of, namespace, 0)).namespace),
                    name: name.map(|name| key((*of, 0, name)).name),
                    from: kept.store.view().revision.saturating_sub(*back),
                };
                watches.push((kept.store.watch(request.clone()).unwrap(), request, *batch));
            }
        }
        kept.clock = kept.clock.plus_ms(script.later_ms[number]);
        // An entry of its own for each, in one group; each sees the store as it was before the group.
        let proposals: Vec<_> = group
            .iter()
            .enumerate()
            .map(|(slot, changes)| {
                vec![proposal_of(
                    (100 * number + slot + 2) as u128,
                    changes,
                    &kept.store,
                )]
            })
            .collect();
        model.add(&kept.apply(proposals));
    }
    let store = &kept.store;
    let current: Vec<_> = model.at(u64::MAX).into_values().collect();
    assert!(store.view().objects().eq(current.iter()));
    for (mut watch, request, batch) in watches {
        assert_eq!(
            drain(&mut watch, batch, store, &model),
            model.watched(&request),
            "{request:?}"
        );
    }
    for look in &script.looks {
        look_back(store, &model, *look);
    }
    histories(store, &model);
    let verified = store.verify(0..=u64::MAX, |_| {}).unwrap();
    assert_eq!(
        (verified.events, verified.versions),
        (model.events.len() as u64, model.changes.len() as u64)
    );
    assert_eq!(verified.digest, store.view().digest);
    backed_up(script, store, &model, &opened, "copy");
    pruned(script, kept, &mut model, &opened, config);
}

/// What is behind the horizons is refused, and everything else is as it was.
fn pruned(
    script: &Script,
    mut kept: Kept,
    model: &mut Model,
    opened: &Arc<dyn seams::Directory>,
    config: StoreConfig,
) {
    let newest = kept.store.view().revision;
    let raise = proposal(1_000_000, Act::RaiseLevel { level: 2 });
    model.add(&kept.apply(vec![vec![raise]]));
    for (number, (all, own)) in script.prunes.into_iter().enumerate() {
        let part = |part: u8| newest * u64::from(part) / 255;
        let asked = Horizons {
            all: part(all),
            resources: vec![(resource(1).into(), part(own))],
        };
        let prune = proposal(1_000_001 + number as u128, Act::Prune(asked));
        model.add(&kept.apply(vec![vec![prune]]));
        // Half of it, a crash that loses some of that half, and all of it.
        let half = kept.store.prune(script.prune_events).unwrap();
        assert!(half.events <= 2 * script.prune_events as u64);
        let (view, clock) = (kept.store.view(), kept.clock);
        kept.store.flush().unwrap();
        let _lost = kept.store.prune(script.prune_events).unwrap();
        drop(kept);
        kept = Kept::open(opened, config.clone());
        kept.clock = clock;
        assert_eq!(kept.store.view().retention, view.retention);
        for _ in 0..10_000 {
            if !kept.store.prune(script.prune_events).unwrap().more {
                break;
            }
        }
        assert_eq!(kept.store.prune(1_000).unwrap(), Pruned::default());
        for look in &script.looks {
            look_back(&kept.store, model, *look);
        }
        histories(&kept.store, model);
        let verified = kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
        let horizon = kept.store.horizon();
        let left = model.events.iter().filter(|(_, last, _)| *last >= horizon);
        assert_eq!(verified.events, left.count() as u64);
        assert_eq!(verified.digest, kept.store.view().digest);
        backed_up(
            script,
            &kept.store,
            model,
            opened,
            &format!("copy-{number}"),
        );
    }
}

/// A database made of its files reads like it.
fn backed_up(
    script: &Script,
    store: &Store,
    model: &Model,
    opened: &Arc<dyn seams::Directory>,
    name: &str,
) {
    let files = Files::of(store, 100 * script.prune_events);
    let copy = files.load(opened, name).unwrap();
    assert_eq!(copy.view().digest, store.view().digest);
    for look in &script.looks {
        look_back(&copy, model, *look);
    }
    histories(&copy, model);
    let verified = copy.verify(copy.horizon()..=u64::MAX, |_| {}).unwrap();
    assert_eq!(verified.digest, store.view().digest);
}

/// Whether a read behind a horizon was refused for that.
fn refused<T: std::fmt::Debug>(result: Result<T, ReadError>) -> bool {
    match result {
        Err(ReadError::Compacted { asked, horizon }) => asked < horizon,
        other => panic!("read behind the horizon: {other:?}"),
    }
}

fn look_back(store: &Store, model: &Model, (part, limit, start): (u8, usize, u8)) {
    let newest = store.view().revision;
    let revision = newest * u64::from(part) / 255;
    let then = model.at(revision);
    let retention = store.view().retention.clone();
    if revision < retention.horizon() {
        assert!(refused(store.event_end(revision)));
        assert!(refused(store.event_at(revision)));
        assert!(refused(store.events(revision..=newest, limit)));
    }
    for of in 0..3 {
        let resource = resource(of);
        if revision < retention.horizon_of(resource) {
            assert!(refused(store.list_at(resource, None, revision, .., limit)));
            assert!(refused(store.object_at(&key((of, 0, 0)), revision)));
            let request = WatchRequest {
                resource: resource.into(),
                namespace: None,
                name: None,
                from: revision,
            };
            assert!(refused(store.watch(request)));
            continue;
        }
        let start = key((of, start % 3, start / 3 % 5));
        let from = (start.namespace.clone(), start.name.clone());
        let all: Vec<_> = then
            .values()
            .filter(|object| &*object.key.resource == resource)
            .cloned()
            .collect();
        let page = store
            .list_at(resource, None, revision, .., usize::MAX)
            .unwrap();
        assert_eq!(
            (&page.objects, page.more),
            (&all, false),
            "{resource} at {revision}"
        );
        let name = |object: &&Arc<Object>| (object.key.namespace.clone(), object.key.name.clone());
        let behind: Vec<_> = all
            .iter()
            .filter(|object| name(object) > from)
            .cloned()
            .collect();
        let page = store
            .list_at(
                resource,
                None,
                revision,
                (Bound::Excluded(from.clone()), Bound::Unbounded),
                limit,
            )
            .unwrap();
        assert_eq!(
            (&page.objects[..], page.more),
            (&behind[..limit.min(behind.len())], behind.len() > limit),
            "behind {from:?}"
        );
        let mine: Vec<_> = all
            .iter()
            .filter(|object| object.key.namespace == start.namespace)
            .cloned()
            .collect();
        let page = store
            .list_at(resource, Some(&start.namespace), revision, .., usize::MAX)
            .unwrap();
        assert_eq!(
            page.objects, mine,
            "{resource} of {} at {revision}",
            start.namespace
        );
        let to: (Text, Text) = from.clone();
        let page = store
            .list_at(
                resource,
                Some(&start.namespace),
                revision,
                ..=to.clone(),
                usize::MAX,
            )
            .unwrap();
        let mine: Vec<_> = mine
            .iter()
            .filter(|object| name(object) <= to)
            .cloned()
            .collect();
        assert_eq!(page.objects, mine, "{resource} up to {to:?} at {revision}");
    }
    for (of, namespace, name) in [(0, 0, 0), (0, 1, 1), (1, 2, 2), (2, 0, 3), (2, 0, 4)] {
        let key = key((of, namespace, name));
        if revision < retention.horizon_of(&key.resource) {
            continue;
        }
        assert_eq!(
            store.object_at(&key, revision).unwrap().as_ref(),
            then.get(&key),
            "{key} at {revision}"
        );
    }
    if revision < retention.horizon() {
        return;
    }
    let holding = model
        .events
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&revision));
    let event = store.event_at(revision).unwrap();
    assert_eq!(
        event.map(|event| (
            event.envelope.first,
            event.envelope.last,
            event.envelope.time
        )),
        holding.copied()
    );
    assert_eq!(
        store.event_end(revision).unwrap(),
        holding.map_or(0, |(_, last, _)| *last)
    );
    // Between two entries' clocks, and at them.
    let time = START.plus_ms(i64::from(part) * 117);
    let stamped = model
        .events
        .iter()
        .rev()
        .find(|(_, _, at)| *at <= time)
        .map(|(_, last, _)| *last);
    match stamped {
        Some(stamped) if stamped < retention.horizon() => {
            assert!(refused(store.revision_at(time)));
        }
        None if retention.horizon() > 0 => assert!(refused(store.revision_at(time))),
        stamped => assert_eq!(store.revision_at(time).unwrap(), stamped, "at {time}"),
    }
    if revision >= retention.whole_from() {
        let mut events = store.all_events(revision).unwrap();
        let mut ends = Vec::new();
        loop {
            let some = events.ready(limit).unwrap();
            assert!(some.len() <= limit);
            if some.is_empty() {
                break;
            }
            ends.extend(some.iter().map(|event| event.revision()));
        }
        let want: Vec<_> = model
            .events
            .iter()
            .map(|(_, last, _)| *last)
            .filter(|last| *last > revision)
            .collect();
        assert_eq!(ends, want, "events from {revision}");
    }
    let some: Vec<_> = store
        .events(revision..=newest, limit)
        .unwrap()
        .iter()
        .map(|event| event.revision())
        .collect();
    let want: Vec<_> = model
        .events
        .iter()
        .map(|(_, last, _)| *last)
        .filter(|last| *last >= revision)
        .take(limit)
        .collect();
    assert_eq!(some, want);
}

fn histories(store: &Store, model: &Model) {
    let mut keys: Vec<_> = model
        .changes
        .iter()
        .map(|(key, _, _)| key.clone())
        .collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let mut want: Vec<_> = model
            .changes
            .iter()
            .filter(|(of, revision, _)| {
                *of == key && *revision >= store.view().retention.horizon_of(&key.resource)
            })
            .map(|(_, revision, after)| (*revision, after.clone()))
            .collect();
        want.reverse();
        let mut got = Vec::new();
        loop {
            let before = got.last().map(|(revision, _)| *revision);
            let some = store.history(&key, before, 3).unwrap();
            if some.is_empty() {
                break;
            }
            for version in some {
                let known = model.at(version.revision - 1).remove(&key);
                assert_eq!(version.before, known, "{key} before {}", version.revision);
                assert!(
                    (version.event.envelope.first..=version.event.envelope.last)
                        .contains(&version.revision)
                );
                got.push((version.revision, version.after));
            }
        }
        assert_eq!(got, want, "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn any_history(script in script()) {
        run(&script);
    }
}
