//! Crashes and disks that fail: what is not flushed is replayed and gives the same; what failed is not seen.

use crate::folder::{Kept, crash_image, directory, faulty};
use crate::language::*;
use eventstore::{Entry, LEVEL, LevelTooHigh, Position, Proposal};
use eventstore_disk::{Store, StoreConfig, StoreError, WatchRequest};
use seams::DiskError;
use std::sync::atomic::Ordering::SeqCst;

fn change(number: u64) -> Proposal {
    objects(
        u128::from(number) + 1,
        vec![put(&map(&format!("m{}", number % 7)), &number.to_string())],
    )
}

#[test]
fn a_crash_goes_back_to_the_last_flush_and_the_log_replays_the_rest() {
    for (flush_after, most_warm) in [(0, 5), (1, 5), (17, 0), (17, 5), (17, 99), (40, 5)] {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = StoreConfig {
            most_warm,
            ..StoreConfig::default()
        };
        let kept = Kept::open(&directory(before.path()), config.clone());
        let mut log = Vec::new();
        let mut flushed = Position::default();
        for number in 1..=40 {
            let group = kept.group(vec![vec![change(number)], vec![change(number)]]);
            kept.store
                .apply(group.clone(), format!("{number}").as_bytes())
                .unwrap();
            log.push((group, number));
            if number == flush_after {
                flushed = kept.store.flush().unwrap();
                assert_eq!(flushed, kept.store.view().position);
            }
            assert_eq!(kept.store.flushed(), flushed);
        }
        crash_image(before.path(), after.path());
        let again = Store::open(directory(after.path()), "state", config).unwrap();
        let (position, metadata) = again.applied();
        assert_eq!(
            (position, again.flushed()),
            (flushed, flushed),
            "flushed after {flush_after}"
        );
        let stood = if flush_after == 0 {
            String::new()
        } else {
            flush_after.to_string()
        };
        assert_eq!(metadata, stood.as_bytes());
        if flush_after == 0 {
            again
                .apply(
                    vec![(
                        Position { term: 1, index: 1 },
                        Some(Entry {
                            clock: START,
                            proposals: vec![found()],
                        }),
                    )],
                    b"",
                )
                .unwrap();
        }
        // Replayed in other groups than at first.
        for (group, number) in log.into_iter().filter(|(group, _)| group[0].0 > flushed) {
            for entry in group {
                again
                    .apply(vec![entry], number.to_string().as_bytes())
                    .unwrap();
            }
        }
        let (was, is) = (kept.store.view(), again.view());
        assert_eq!(
            (is.digest, is.position, is.revision),
            (was.digest, was.position, was.revision)
        );
        assert!(is.objects().eq(was.objects()));
        assert_eq!(
            again.verify(0..=u64::MAX, |_| {}).unwrap(),
            kept.store.verify(0..=u64::MAX, |_| {}).unwrap()
        );
    }
}

#[test]
fn outcomes_sessions_and_positions_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, StoreConfig::default());
    let open = eventstore::Act::OpenSession {
        node: "n1".into(),
        server: "server-1".into(),
    };
    kept.apply(vec![
        vec![of(proposal(2, open), server())],
        vec![objects(3, vec![remove(&map("nothing"))]), change(3)],
    ]);
    let position = Position { term: 2, index: 9 };
    kept.store.advance(position, b"members").unwrap();
    let was = kept.store.view();
    kept.store.flush().unwrap();
    drop(kept);
    let mut kept = Kept::open(&directory, StoreConfig::default());
    kept.term = 2;
    assert_eq!(kept.store.applied(), (position, (&b"members"[..]).into()));
    let is = kept.store.view();
    assert!(is.sessions().eq(was.sessions()) && is.sessions().count() == 1);
    assert_eq!((is.cluster, is.level, is.clock), (CLUSTER, 1, START));
    let repeated = kept.apply(vec![vec![objects(3, vec![put(&map("x"), "")]), change(3)]]);
    assert!(
        repeated[0].events.is_empty(),
        "both are known: {:?}",
        repeated[0].outcomes
    );
    assert_eq!(is.revision, kept.store.view().revision);
}

#[test]
fn a_write_that_fails_is_not_seen_and_nothing_is_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (faults, faulty) = faulty(folder.path());
    let mut kept = Kept::open(&faulty, StoreConfig::default());
    kept.take(change(1));
    let mut watch = kept
        .store
        .watch(WatchRequest {
            resource: "configmaps".into(),
            namespace: None,
            name: None,
            from: 2,
        })
        .unwrap();
    let was = kept.store.view();
    faults.full.store(true, SeqCst);
    let error = kept.try_apply(vec![vec![change(2)]]).unwrap_err();
    assert!(
        matches!(error, StoreError::Disk(DiskError::Full { .. })),
        "{error}"
    );
    let is = kept.store.view();
    assert_eq!(
        (is.revision, is.digest, is.position),
        (was.revision, was.digest, was.position)
    );
    assert!(is.objects().eq(was.objects()));
    assert!(watch.ready(9).unwrap().is_none());
    // Its outcome is not known, though the fold had it.
    let mut expecting = kept.store.expect_outcome(change(2).id, 0).unwrap();
    assert!(now(expecting.settled()).is_none());
    faults.full.store(false, SeqCst);
    let error = kept.try_apply(vec![vec![change(2)]]).unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)), "{error}");
    drop((expecting, watch, kept));
    // Opened again it goes on.
    let mut kept = Kept::open(&faulty, StoreConfig::default());
    assert_eq!(kept.store.view().digest, was.digest);
    assert_eq!(kept.take(change(2)), 3);
}

/// A future's result, if it has one at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn what_must_not_be_applied_is_refused_before_anything_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    kept.term = 3;
    kept.take(change(1));
    let was = kept.store.view();
    let entry = |proposals| {
        Some(Entry {
            clock: START,
            proposals,
        })
    };
    let raise = of(
        proposal(9, eventstore::Act::RaiseLevel { level: LEVEL + 1 }),
        server(),
    );
    let at = |term, index| Position { term, index };
    for (name, group) in [
        ("again", vec![(at(3, 2), entry(vec![change(2)]))]),
        ("an older term", vec![(at(2, 3), entry(vec![change(2)]))]),
        (
            "out of order inside",
            vec![(at(3, 4), entry(vec![change(2)])), (at(3, 3), None)],
        ),
        (
            "a higher level",
            vec![
                (at(3, 3), entry(vec![change(2)])),
                (at(3, 4), entry(vec![raise])),
            ],
        ),
    ] {
        let error = kept.store.apply(group, b"").unwrap_err();
        let fits = match name {
            "a higher level" => {
                matches!(error, StoreError::Level(LevelTooHigh { level, .. }) if level == LEVEL + 1)
            }
            _ => matches!(error, StoreError::OutOfOrder { .. }),
        };
        assert!(fits, "{name}: {error}");
        assert_eq!(
            (kept.store.view().position, kept.store.view().digest),
            (was.position, was.digest),
            "{name}"
        );
    }
    assert_eq!(kept.take(change(2)), 3, "and it goes on");
    let error = Store::read_entry(at(3, 9), b"{}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry 3.9: not written by this program: first byte 0x7b"
    );
}
