//! A disk that lies: each record's damage is an error that names it, and verify finds what a checksum can't.

use crate::folder::{Kept, directory, faulty};
use crate::language::*;
use eventstore::{Act, Key, Position};
use eventstore_disk::{Store, StoreConfig, WatchRequest};
use seams::{Batch, Disk, DiskOptions, Order, Range, Synced};

/// Revisions: 1 the founding, 2 and 3 the map `a`, 4 a session, 5 and 6 the maps `b` and `c`, 7 `a` again, 8 `c` gone.
fn history(kept: &mut Kept) {
    let open = Act::OpenSession {
        node: "n1".into(),
        server: "server-1".into(),
    };
    kept.take(objects(2, vec![put(&map("a"), "1")]));
    kept.take(objects(3, vec![put(&map("a"), "2")]));
    kept.take(of(proposal(4, open), server()));
    kept.take(objects(5, vec![put(&map("b"), "1"), put(&map("c"), "1")]));
    kept.take(objects(6, vec![put(&map("a"), "3")]));
    kept.take(objects(7, vec![remove(&map("c"))]));
    kept.store.flush().unwrap();
}

/// What is current is written with each change.
fn all_records() -> StoreConfig {
    StoreConfig {
        most_warm: 0,
        ..StoreConfig::default()
    }
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn version(key: &Key, revision: u64) -> Vec<u8> {
    bytes(&[b"v", &key.to_bytes(), b"\0", &revision.to_be_bytes()])
}

fn outcome(sequence: u64) -> Vec<u8> {
    bytes(&[b"q", &sequence.to_be_bytes()])
}

fn event(revision: u64) -> Vec<u8> {
    bytes(&[b"e", &revision.to_be_bytes()])
}

#[test]
fn a_flipped_bit_is_an_error_that_names_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let (faults, faulty) = faulty(folder.path());
    // So many births make no key set, and the smallest ring keeps one group.
    let config = StoreConfig {
        ring_events: 1,
        ..all_records()
    };
    let mut kept = Kept::open(&faulty, config.clone());
    history(&mut kept);
    let store = &kept.store;
    let (a, c) = (map("a"), map("c"));
    let check = |what: &str, prefix: &[u8], read: &dyn Fn() -> String, want: &str| {
        let good = read();
        faults.flip(Some(prefix));
        let bad = read();
        faults.flip(None);
        assert!(!good.contains("corrupt"), "{what}: {good}");
        assert_eq!(
            bad,
            format!("database state: {want}: corrupt: its checksum is wrong"),
            "{what}"
        );
        assert_eq!(read(), good, "{what}: nothing bad is remembered");
    };
    let said = |result: Result<String, eventstore_disk::ReadError>| {
        result.unwrap_or_else(|error| error.to_string())
    };
    let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let object = || said(store.object_at(&a, 3).map(|object| debug(&object)));
    check(
        "an object of the past",
        &version(&a, 3),
        &object,
        "object configmaps/default/a at revision 3",
    );
    let gone = || said(store.history(&c, None, 9).map(|versions| debug(&versions)));
    check(
        "a deletion",
        &version(&c, 8),
        &gone,
        "object configmaps/default/c at revision 8",
    );
    check(
        "an event",
        &event(6),
        &|| said(store.event_at(5).map(|event| debug(&event))),
        "event 6",
    );
    let list = || {
        said(
            store
                .list_at("configmaps", None, 6, .., 9)
                .map(|page| debug(&page)),
        )
    };
    check(
        "a birth",
        b"b",
        &list,
        "a birth of configmaps at revision 2",
    );
    check(
        "an object in a list",
        &version(&c, 6),
        &list,
        "object configmaps/default/c at revision 6",
    );
    let time = || {
        said(
            store
                .revision_at(START.plus_ms(-1))
                .map(|revision| debug(&revision)),
        )
    };
    check("an event in a search", b"e", &time, "event 4");
    let watch = || {
        let request = WatchRequest {
            resource: "configmaps".into(),
            namespace: None,
            name: None,
            from: 1,
        };
        let mut watch = store.watch(request).unwrap();
        said(
            watch
                .ready(99)
                .map(|batch| debug(&batch.map(|batch| batch.revision))),
        )
    };
    check(
        "a watch",
        &version(&c, 6),
        &watch,
        "object configmaps/default/c at revision 6",
    );
    drop(kept);
    let open = || match Store::open(faulty.clone(), "state", config.clone()) {
        Ok(store) => store.view().digest.to_string(),
        Err(error) => error.to_string(),
    };
    for (what, prefix, want) in [
        ("the position", b"m".to_vec(), "where it stands"),
        (
            "what is current",
            bytes(&[b"c", &a.to_bytes()]),
            "the current revision of configmaps/default/a",
        ),
        (
            "how far that is so",
            b"u".to_vec(),
            "up to where what is current was written",
        ),
        (
            "the current version",
            version(&a, 7),
            "object configmaps/default/a at revision 7",
        ),
        ("the last outcome", outcome(7), "outcome 7"),
        ("a session", b"sn1".to_vec(), "the session of n1"),
        (
            "a resource",
            b"rconfigmaps".to_vec(),
            "the books of resource configmaps",
        ),
    ] {
        check(what, &prefix, &open, want);
    }
    let known = || {
        let store = Store::open(faulty.clone(), "state", config.clone()).unwrap();
        match store.outcomes_of(&[id(2).uuid].into(), 0) {
            Ok(known) => debug(&known),
            Err(error) => error.to_string(),
        }
    };
    check("an outcome", &outcome(3), &known, "outcome 3");
}

/// What is done to the database behind the store's back.
enum Tamper {
    /// Changes the value under a key, and mends its checksum.
    Value(Vec<u8>, fn(&mut Vec<u8>)),
    Lose(Vec<u8>),
    /// Puts one key's value under another's.
    Copy(Vec<u8>, Vec<u8>),
}

fn tamper(disk: &dyn Disk, tamper: &Tamper) {
    let mut batch = Batch::new();
    match tamper {
        Tamper::Value(key, change) => {
            let mut value = disk.get(key).unwrap().unwrap().to_vec();
            change(&mut value);
            let sum = crc32fast::hash(&[key, &value[4..]].concat());
            value[..4].copy_from_slice(&sum.to_le_bytes());
            batch.put(key.clone(), value);
        }
        Tamper::Lose(key) => batch.delete(key.clone()),
        Tamper::Copy(from, to) => batch.put(to.clone(), disk.get(from).unwrap().unwrap()),
    }
    disk.write(batch, Synced::Yes).unwrap();
}

#[test]
fn verify_finds_what_no_checksum_can() {
    let (a, b, c) = (map("a"), map("b"), map("c"));
    let current = |key: &Key| bytes(&[b"c", &key.to_bytes()]);
    let last = |value: &mut Vec<u8>| *value.last_mut().unwrap() ^= 1;
    for (what, how, want) in [
        ("nothing", None, "fine"),
        (
            "a body",
            Some(Tamper::Value(version(&a, 3), last)),
            "revision 3 is wrong: object configmaps/default/a at revision 3: its body is not the one that the chain covers",
        ),
        // Behind the checksum, format, uid and revision: the seconds of the creation.
        (
            "a stamp",
            Some(Tamper::Value(version(&b, 5), |value| {
                value[4 + 1 + 16 + 8 + 7] ^= 1
            })),
            "revision 5 is wrong: object configmaps/default/b at revision 5: its stamps are not the event's",
        ),
        (
            "an envelope",
            Some(Tamper::Value(event(4), last)),
            "revision 4 is wrong: its digest does not follow from the one before",
        ),
        (
            "a digest",
            Some(Tamper::Value(event(3), |value| value[5] ^= 1)),
            "revision 3 is wrong: its digest does not follow from the one before",
        ),
        (
            "a lost event",
            Some(Tamper::Lose(event(6))),
            "revision 5 is wrong: its event is missing",
        ),
        (
            "a lost version",
            Some(Tamper::Lose(version(&c, 6))),
            "revision 6 is wrong: object configmaps/default/c at revision 6 is missing",
        ),
        (
            "an older version in its place",
            Some(Tamper::Copy(version(&a, 2), version(&a, 3))),
            "revision 3 is wrong: database state: object configmaps/default/a at revision 3: corrupt: its checksum is wrong",
        ),
        (
            "a body before the chain's break",
            Some(Tamper::Value(version(&a, 2), last)),
            "revision 2 is wrong: object configmaps/default/a at revision 2: its body is not the one that the chain covers",
        ),
        (
            "current, and older than the newest",
            Some(Tamper::Value(current(&a), |value| value[11] = 3)),
            "revision 3 is wrong: configmaps/default/a has newer versions than the current one",
        ),
        (
            "current is lost",
            Some(Tamper::Lose(current(&b))),
            "revision 5 is wrong: configmaps/default/b lives and is not current",
        ),
        (
            "a lost outcome",
            Some(Tamper::Lose(outcome(4))),
            "database state: outcome 4: corrupt: it is missing",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(folder.path());
        let mut kept = Kept::open(&directory, all_records());
        history(&mut kept);
        let before = kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
        assert_eq!((before.events, before.versions, before.revision), (7, 6, 8));
        drop(kept);
        if let Some(how) = how {
            tamper(
                &*directory
                    .open("state", &DiskOptions::without_wal())
                    .unwrap(),
                &how,
            );
        }
        let store = Store::open(directory, "state", all_records()).unwrap();
        let mut told = Vec::new();
        let verified = match store.verify(0..=u64::MAX, |revision| told.push(revision)) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(verified, want, "{what}");
    }
}

#[test]
fn verify_goes_by_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), all_records());
    history(&mut kept);
    // (range, events, versions, up to): an event that holds the start is verified whole; one that reaches behind the end is not.
    for (range, events, versions, revision) in [
        (0..=8, 7, 6, 8),
        (3..=7, 4, 4, 7),
        (6..=8, 3, 4, 8),
        (1..=5, 4, 2, 4),
        (8..=8, 1, 1, 8),
        (2..=u64::MAX, 6, 6, 8),
    ] {
        let verified = kept.store.verify(range.clone(), |_| {}).unwrap();
        assert_eq!(
            (verified.events, verified.versions, verified.revision),
            (events, versions, revision),
            "{range:?}"
        );
        let recorded = kept.store.recorded_at(revision).unwrap().unwrap();
        assert_eq!(verified.digest, recorded.digest, "{range:?}");
    }
}

#[test]
fn a_database_without_its_position_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, all_records());
    history(&mut kept);
    assert_eq!(kept.store.applied().0, Position { term: 1, index: 7 });
    drop(kept);
    let disk = directory
        .open("state", &DiskOptions::without_wal())
        .unwrap();
    tamper(&*disk, &Tamper::Lose(b"m".to_vec()));
    assert!(
        !disk
            .scan(&Range::all(), Order::Ascending, 1)
            .unwrap()
            .is_empty()
    );
    drop(disk);
    let error = Store::open(directory, "state", all_records())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "database state: where it stands: corrupt: it is missing"
    );
}
