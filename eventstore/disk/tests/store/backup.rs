//! A database made from a backup's files is the one that they were made of; files that are damaged, missing or another's are refused.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Act, Horizons, Key, Proposal, Text};
use eventstore_disk::backup::{Base, FileError, LoadError, Loader, Segment};
use eventstore_disk::{ReadError, Store, StoreConfig, WatchRequest};
use seams::Directory;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The files of a backup, in order.
#[derive(Clone, Default)]
pub struct Files {
    pub base: Vec<Vec<u8>>,
    pub segments: Vec<Vec<u8>>,
}

impl Files {
    /// Of all that the store has.
    pub fn of(store: &Store, most_bytes: usize) -> Self {
        let mut files = Self::default();
        let mut from = None;
        while let Some((head, page)) = store.base_page(from).unwrap() {
            assert_eq!(Base::read_head(&page).unwrap(), head);
            files.base.push(page);
            from = head.next;
            if from.is_none() {
                break;
            }
        }
        files.go_on(store, most_bytes);
        files
    }

    /// What came since.
    pub fn go_on(&mut self, store: &Store, most_bytes: usize) {
        let base = self.base.first().map(|page| Base::read(page).unwrap().head);
        let last = self
            .segments
            .last()
            .map(|file| Segment::read(file).unwrap().head.last);
        let mut after = last
            .or(base.map(|head| head.beginning.revision))
            .unwrap_or(0);
        while let Some((head, file)) = store.segment_after(after, most_bytes).unwrap() {
            assert_eq!(Segment::read_head(&file).unwrap(), head);
            after = head.last;
            self.segments.push(file);
        }
        assert_eq!(after, store.view().revision);
    }

    pub fn load(&self, directory: &Arc<dyn Directory>, name: &str) -> Result<Store, LoadError> {
        let config = StoreConfig::default();
        let wrong = |error: FileError| LoadError::Wrong(error.to_string());
        let base: Result<Vec<_>, _> = self.base.iter().map(|page| Base::read(page)).collect();
        let base = base.map_err(wrong)?;
        let segments: Result<Vec<_>, _> = self
            .segments
            .iter()
            .map(|file| Segment::read(file))
            .collect();
        let segments = segments.map_err(wrong)?;
        let of_base = base.iter().flat_map(|page| page.head.without.clone());
        let of_segments = segments
            .iter()
            .flat_map(|segment| segment.head.without.clone());
        let left_out: BTreeSet<Text> = of_base.chain(of_segments).collect();
        let mut loader = Loader::new(&**directory, name, &config, left_out)?;
        for page in base {
            loader.base(page)?;
        }
        for segment in segments {
            loader.segment(segment)?;
        }
        let view = loader.finish()?;
        let store = Store::open(directory.clone(), name, config).unwrap();
        assert_eq!(store.view().digest, view.digest);
        Ok(store)
    }
}

fn change(number: u64) -> Proposal {
    objects(
        u128::from(number),
        vec![put(&map(&format!("m{}", number % 7)), &number.to_string())],
    )
}

/// A store with events 1 to 41, its files in pieces of some events each.
fn some() -> (tempfile::TempDir, Arc<dyn Directory>, Kept, Files) {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, StoreConfig::default());
    for number in 2..=40 {
        kept.take(change(number));
    }
    kept.take(proposal(41, Act::RaiseLevel { level: 2 }));
    let files = Files::of(&kept.store, 2_000);
    assert!(files.segments.len() > 3 && files.base.is_empty());
    (folder, directory, kept, files)
}

#[test]
fn it_is_the_same_again() {
    let (_folder, directory, kept, files) = some();
    let again = files.load(&directory, "again").unwrap();
    let (was, is) = (kept.store.view(), again.view());
    assert_eq!(
        (is.digest, is.position, is.clock),
        (was.digest, was.position, was.clock)
    );
    assert_eq!(
        (is.cluster, is.level, is.round),
        (was.cluster, was.level, was.round)
    );
    assert!(is.objects().eq(was.objects()));
    let verified = again.verify(0..=u64::MAX, |_| {}).unwrap();
    assert_eq!((verified.events, verified.digest), (41, was.digest));
}

/// Another cluster goes on from the events of this one.
#[test]
fn it_goes_on_as_another_cluster() {
    let (_folder, directory, mut kept, _) = some();
    let session = Act::OpenSession {
        node: "n1".into(),
        server: "server-1".into(),
    };
    kept.take(of(proposal(50, session), server()));
    let before = kept.store.view();
    let restored = |at| Act::Restored {
        cluster: uuid::Uuid::from_u128(99),
        gap: 1_000,
        at,
    };
    let refused = kept.apply(vec![vec![proposal(51, restored(before.revision + 1))]]);
    assert!(refused[0].events.is_empty(), "that revision is not there");
    let revision = kept.take(proposal(52, restored(5)));
    assert_eq!(revision, before.revision + 1_000);
    assert_eq!(kept.take(change(53)), revision + 1);
    let check = |store: &Store| {
        let view = store.view();
        assert_eq!(view.cluster, uuid::Uuid::from_u128(99));
        assert!(view.session("n1").is_none());
        // Any revision that was passed over is that event.
        let passed = store.event_at(before.revision + 500).unwrap().unwrap();
        assert_eq!(passed.revision(), revision);
        // Who stands at one of them saw what is lost; before and behind them all is known.
        let ends = before.revision;
        for (from, lost) in [
            (ends, false),
            (ends + 1, true),
            (revision - 1, true),
            (revision, false),
        ] {
            let request = WatchRequest {
                resource: "configmaps".into(),
                namespace: None,
                name: None,
                from,
            };
            match store.watch(request).map(|_| ()) {
                Ok(()) => assert!(!lost, "{from}"),
                Err(ReadError::Lost { asked, ends: end }) => {
                    assert_eq!((asked, end, lost), (from, ends, true));
                }
                Err(error) => panic!("{from}: {error}"),
            }
        }
        store.verify(0..=u64::MAX, |_| {}).unwrap();
    };
    check(&kept.store);
    kept.store.flush().unwrap();
    drop(kept);
    let kept = Kept::open(&directory, StoreConfig::default());
    check(&kept.store);
    let files = Files::of(&kept.store, 2_000);
    check(&files.load(&directory, "again").unwrap());
}

#[test]
fn what_is_wrong_is_named() {
    let (_folder, directory, kept, files) = some();
    let check = |name: &str, change: &dyn Fn(&mut Files), expected: &str| {
        let mut changed = files.clone();
        change(&mut changed);
        let error = changed.load(&directory, name).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{name}: {error}");
    };
    // A bit anywhere: in what it is, the head, the items, the sum.
    let len = files.segments[1].len();
    for at in (0..len).step_by(7).chain([len - 1]) {
        check(
            &format!("flipped-{at}"),
            &|files| files.segments[1][at] ^= 1,
            if at < 16 {
                "it is no reckon events 1"
            } else {
                "its checksum is wrong"
            },
        );
    }
    check(
        "cut",
        &|files| files.segments[1].truncate(200),
        "its checksum is wrong",
    );
    check(
        "empty",
        &|files| files.segments[1].clear(),
        "it is cut short",
    );
    check(
        "missing",
        &|files| drop(files.segments.remove(1)),
        "do not follow from those before",
    );
    check(
        "first-missing",
        &|files| drop(files.segments.remove(0)),
        "do not follow",
    );
    check(
        "another-kind",
        &|files| files.base.push(files.segments[0].clone()),
        "it is no reckon base 1",
    );
    // Another history from some event on.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = Kept::open(
        &crate::folder::directory(elsewhere.path()),
        StoreConfig::default(),
    );
    for number in 102..=150 {
        other.take(change(number));
    }
    let revision = kept.store.view().revision;
    let (_, file) = other
        .store
        .segment_after(revision, 1 << 20)
        .unwrap()
        .unwrap();
    check(
        "another",
        &|files| files.segments.push(file.clone()),
        "do not follow",
    );
    // What is there twice does no harm.
    let mut twice = files.clone();
    twice.segments.insert(2, files.segments[1].clone());
    assert!(twice.load(&directory, "twice").is_ok());
    assert!(
        twice.load(&directory, "twice").is_err(),
        "it is there already"
    );
}

/// A bit anywhere in a base: in what it is, the head, the objects, the sum.
fn every_flip_is_seen(files: &Files) {
    for (page, good) in files.base.iter().enumerate() {
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = Base::read(&bad).unwrap_err().to_string();
            let expected = if bit / 8 < "reckon base 1\n".len() {
                "it is no reckon base 1"
            } else {
                "its checksum is wrong"
            };
            assert!(error.contains(expected), "page {page}, bit {bit}: {error}");
        }
        for len in 0..good.len() {
            assert!(
                Base::read(&good[..len]).is_err(),
                "page {page} cut at {len}"
            );
        }
    }
}

#[test]
fn what_was_pruned_before_it_was_archived() {
    let (_folder, directory, mut kept, _) = some();
    for number in 50..=60 {
        kept.take(objects(
            number,
            vec![put(
                &Key::new("apps/deployments", "n", "d"),
                &number.to_string(),
            )],
        ));
    }
    let mut before = Files::of(&kept.store, 2_000);
    for number in 61..=70 {
        kept.take(objects(
            number,
            vec![put(
                &Key::new("apps/deployments", "n", "d"),
                &number.to_string(),
            )],
        ));
    }
    let newest = kept.store.view().revision;
    let asked = Horizons {
        all: 20,
        resources: vec![("apps/deployments".into(), newest)],
    };
    kept.take(proposal(71, Act::Prune(asked)));
    while kept.store.prune(8).unwrap().more {}
    kept.take(change(72));

    // An archive that had begun before has the whole past of what goes by the main horizon.
    before.go_on(&kept.store, 2_000);
    let again = before.load(&directory, "before").unwrap();
    assert_eq!(again.view().digest, kept.store.view().digest);
    assert_eq!(again.horizon(), 0);
    assert!(again.object_at(&map("m3"), 5).unwrap().is_some());
    let of_deployments = again.view().retention.horizon_of("apps/deployments");
    assert_eq!(of_deployments, kept.store.view().revision + 1);
    assert!(
        again
            .list_at("apps/deployments", None, newest, .., 9)
            .is_err()
    );
    again.verify(0..=u64::MAX, |_| {}).unwrap();

    // One that begins now begins at the horizon.
    let now = Files::of(&kept.store, 2_000);
    assert!(!now.base.is_empty());
    every_flip_is_seen(&now);
    let again = now.load(&directory, "now").unwrap();
    assert_eq!(again.view().digest, kept.store.view().digest);
    assert_eq!(again.horizon(), 21);
    assert!(again.object_at(&map("m3"), 19).is_err());
    for revision in [21, 30, newest] {
        assert_eq!(
            again
                .list_at("configmaps", None, revision, .., 99)
                .unwrap()
                .objects,
            kept.store
                .list_at("configmaps", None, revision, .., 99)
                .unwrap()
                .objects,
        );
    }
    again.verify(again.horizon()..=u64::MAX, |_| {}).unwrap();
}

/// A base has them whole, but of what follows some went before it was archived.
#[test]
fn what_is_left_out_is_not_loaded_from_the_base_either() {
    let (_folder, directory, mut kept, _) = some();
    let key = Key::new("apps/deployments", "n", "d");
    let put_again = |kept: &mut Kept, numbers: std::ops::RangeInclusive<u128>| {
        for number in numbers {
            let change = put(&key, &number.to_string());
            kept.take(objects(number, vec![change]));
        }
    };
    put_again(&mut kept, 50..=60);
    let pruned = |all, resources| Act::Prune(Horizons { all, resources });
    let horizon = kept.store.view().revision - 3;
    kept.take(proposal(61, pruned(horizon, Vec::new())));
    let mut files = Files::of(&kept.store, 2_000);
    let base = Base::read(&files.base[0]).unwrap();
    assert!(base.objects.iter().any(|object| object.key == key));
    assert!(base.head.without.is_empty());

    put_again(&mut kept, 70..=80);
    let newest = kept.store.view().revision;
    let of_deployments = vec![("apps/deployments".into(), newest)];
    kept.take(proposal(81, pruned(0, of_deployments)));
    while kept.store.prune(8).unwrap().more {}
    files.go_on(&kept.store, 2_000);
    let again = files.load(&directory, "again").unwrap();
    let view = again.view();
    assert_eq!(view.digest, kept.store.view().digest);
    assert!(view.get(&key).is_none(), "{:?}", view.get(&key));
    assert!(view.list("configmaps", None).count() > 0);
    again.verify(again.horizon()..=u64::MAX, |_| {}).unwrap();
}

/// Whoever archives may be stopped behind it.
#[test]
fn a_base_alone_is_a_database() {
    let (_folder, directory, mut kept, _) = some();
    let asked = Horizons {
        all: 20,
        resources: Vec::new(),
    };
    kept.take(proposal(42, Act::Prune(asked)));
    let mut files = Files::of(&kept.store, 2_000);
    files.segments.clear();
    let alone = files.load(&directory, "alone").unwrap();
    assert_eq!(alone.view().revision, 20);
    let objects = kept.store.list_at("configmaps", None, 20, .., 99);
    let view = alone.view();
    let now: Vec<_> = view.list("configmaps", None).cloned().collect();
    assert_eq!(now, objects.unwrap().objects);
    alone.verify(alone.horizon()..=u64::MAX, |_| {}).unwrap();
}
