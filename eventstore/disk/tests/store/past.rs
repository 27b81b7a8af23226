//! The past, where the model's random histories don't reach: size, and the edges.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Change, Key};
use eventstore_disk::{ReadError, StoreConfig};
use std::ops::Bound;

const OBJECTS: usize = 10_000;

#[test]
fn a_list_of_ten_thousand() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, StoreConfig::default());
    let key = |number: usize| {
        Key::new(
            "configmaps",
            format!("ns{}", number % 10),
            format!("m{number:05}"),
        )
    };
    let mut number = 1;
    let mut all = |kept: &mut Kept, what: &dyn Fn(usize) -> Change| {
        for from in (0..OBJECTS).step_by(500) {
            number += 1;
            kept.take(objects(number, (from..from + 500).map(what).collect()));
        }
        kept.store.view().revision
    };
    let made = all(&mut kept, &|number| put(&key(number), "made"));
    let changed = all(&mut kept, &|number| put(&key(number), "changed"));
    let gone = all(&mut kept, &|number| remove(&key(number)));
    let again = all(&mut kept, &|number| put(&key(number), "again"));
    let half = changed - OBJECTS as u64 / 2;
    for (revision, living) in [
        (1, 0),
        (made, OBJECTS),
        (half, OBJECTS),
        (changed, OBJECTS),
        (changed + 500, OBJECTS - 500),
        (gone, 0),
        (again, OBJECTS),
    ] {
        let page = kept
            .store
            .list_at("configmaps", None, revision, .., usize::MAX)
            .unwrap();
        assert_eq!(
            (page.objects.len(), page.more),
            (living, false),
            "at {revision}"
        );
        assert!(
            page.objects
                .iter()
                .all(|object| object.revision() <= revision)
        );
        assert!(
            page.objects
                .is_sorted_by(|left, right| left.key < right.key)
        );
        let mine = kept
            .store
            .list_at("configmaps", Some("ns3"), revision, .., usize::MAX)
            .unwrap();
        assert!(
            mine.objects
                .iter()
                .all(|object| &*object.key.namespace == "ns3")
        );
        assert!(
            mine.objects.len()
                == page
                    .objects
                    .iter()
                    .filter(|object| &*object.key.namespace == "ns3")
                    .count()
        );
    }
    // Page by page, as of a moment when all were about to go.
    let mut from = Bound::Unbounded;
    let mut seen = 0;
    loop {
        let page = kept
            .store
            .list_at("configmaps", None, changed, (from, Bound::Unbounded), 700)
            .unwrap();
        seen += page.objects.len();
        let last = &page.objects.last().unwrap().key;
        from = Bound::Excluded((last.namespace.clone(), last.name.clone()));
        if !page.more {
            break;
        }
        assert_eq!(page.objects.len(), 700);
    }
    assert_eq!(seen, OBJECTS);
    kept.store.flush().unwrap();
    let digest = kept.store.view().digest;
    drop(kept);
    let kept = Kept::open(&directory, StoreConfig::default());
    assert_eq!(
        (
            kept.store.view().count("configmaps"),
            kept.store.view().digest
        ),
        (OBJECTS, digest)
    );
    let verified = kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
    assert_eq!(verified.versions, 4 * OBJECTS as u64);
}

#[test]
fn edges() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    kept.clock = START.plus_ms(1_000);
    kept.take(objects(2, vec![put(&map("a"), "1"), put(&map("b"), "1")]));
    let store = &kept.store;
    for (asked, end) in [
        (0, Some(0)),
        (1, Some(1)),
        (2, Some(3)),
        (3, Some(3)),
        (4, None),
        (u64::MAX, None),
    ] {
        match (store.event_end(asked), end) {
            (Ok(got), Some(end)) => assert_eq!(got, end),
            (Err(ReadError::FutureRevision { current: 3, .. }), None) => {}
            (other, _) => panic!("{asked}: {other:?}"),
        }
        assert_eq!(store.object_at(&map("a"), asked).is_ok(), end.is_some());
        assert_eq!(
            store.list_at("configmaps", None, asked, .., 1).is_ok(),
            end.is_some()
        );
        assert_eq!(
            store.event_at(asked).unwrap().map(|event| event.revision()),
            end.filter(|end| *end > 0)
        );
    }
    for (later_ms, revision) in [
        (-1, None),
        (0, Some(1)),
        (999, Some(1)),
        (1_000, Some(3)),
        (99_999, Some(3)),
    ] {
        assert_eq!(
            store.revision_at(START.plus_ms(later_ms)).unwrap(),
            revision,
            "{later_ms} ms after the start"
        );
    }
    assert!(store.history(&map("nothing"), None, 9).unwrap().is_empty());
    assert_eq!(
        store
            .list_at("nothing", None, 3, .., 9)
            .unwrap()
            .objects
            .len(),
        0
    );
    assert_eq!(
        store
            .list_at("configmaps", None, 3, .., 0)
            .unwrap()
            .objects
            .len(),
        0
    );
    assert!(store.list_at("configmaps", None, 3, .., 0).unwrap().more);
    // A range that ends before it begins is empty, now and in the past.
    let name = |name: &str| ("default".into(), name.into());
    for revision in [2, 3] {
        let page = store
            .list_at("configmaps", None, revision, name("b")..name("a"), 9)
            .unwrap();
        assert_eq!((page.objects.len(), page.more), (0, false));
    }
    assert!(store.disk_usage().unwrap() > 0);
    assert_eq!(
        (
            store.status().objects,
            store.status().events,
            store.horizon()
        ),
        (2, 2, 0)
    );
}
