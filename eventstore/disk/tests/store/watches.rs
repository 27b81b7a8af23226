//! Watches as tasks see them: waiting, waking, falling behind, giving up.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::Key;
use eventstore_disk::{ChangeKind, ReadError, StoreConfig, StoreError, WatchRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(50);

fn maps(from: u64) -> WatchRequest {
    WatchRequest {
        resource: "configmaps".into(),
        namespace: None,
        name: None,
        from,
    }
}

fn node(name: &str) -> Key {
    Key::new("nodes", "", name)
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_for_its_own_resource_and_bookmarks_at_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    let mut watch = kept.store.watch(maps(1)).unwrap();
    assert_eq!(watch.bookmark(), Some(1));
    let waiting = tokio::spawn(async move {
        let batch = watch.next_batch(1).await.unwrap();
        (watch, batch)
    });
    tokio::time::sleep(SOON).await;
    assert!(!waiting.is_finished());
    kept.take(objects(2, vec![put(&node("n1"), "1")]));
    tokio::time::sleep(SOON).await;
    assert!(
        !waiting.is_finished(),
        "another resource's change is not its own"
    );
    kept.take(objects(
        3,
        vec![
            put(&map("a"), "1"),
            put(&node("n1"), "2"),
            put(&map("b"), "1"),
        ],
    ));
    let (mut watch, batch) = waiting.await.unwrap();
    assert_eq!(
        (batch.changes[0].revision, batch.whole),
        (3, false),
        "the rest of its event is to come"
    );
    assert_eq!((watch.cursor(), watch.bookmark()), (3, None));
    let batch = watch.next_batch(9).await.unwrap();
    assert_eq!(
        (
            batch.changes.len(),
            batch.changes[0].revision,
            batch.revision,
            batch.whole
        ),
        (1, 5, 5, true)
    );
    kept.take(objects(4, vec![put(&node("n2"), "1")]));
    assert_eq!(
        watch.bookmark(),
        Some(6),
        "bookmarks go on though nothing of its own happens"
    );
    kept.take(objects(5, vec![remove(&map("a"))]));
    let change = watch.next().await.unwrap();
    assert_eq!(
        (
            change.kind(),
            change.object().revision(),
            change.before.as_ref().unwrap().revision()
        ),
        (ChangeKind::Deleted, 7, 3)
    );
    assert_eq!(change.event.envelope.id, id(5));
}

#[tokio::test(start_paused = true)]
async fn giving_up_waiting_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    let mut watch = kept.store.watch(maps(1)).unwrap();
    for number in 0..20 {
        assert!(timeout(SOON, watch.next_batch(1)).await.is_err());
        kept.take(objects(
            2 + number,
            vec![put(&map("a"), "x"), put(&map("b"), "x")],
        ));
        for part in 0..2 {
            assert_eq!(
                timeout(SOON, watch.next()).await.unwrap().unwrap().revision,
                2 + 2 * number as u64 + part
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_watch_falls_back_to_the_disk_and_a_quiet_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        ring_events: 10,
        ..StoreConfig::default()
    };
    let mut kept = Kept::open(&directory(folder.path()), config);
    kept.take(objects(2, vec![put(&node("n1"), "1")]));
    let mut slow = kept.store.watch(maps(1)).unwrap();
    let mut quiet = kept
        .store
        .watch(WatchRequest {
            resource: "nodes".into(),
            ..maps(2)
        })
        .unwrap();
    let mut one = kept
        .store
        .watch(WatchRequest {
            name: Some("m7".into()),
            namespace: Some("default".into()),
            ..maps(1)
        })
        .unwrap();
    for number in 0..1_000 {
        kept.take(objects(
            10 + number,
            vec![put(&map(&format!("m{}", number % 100)), "x")],
        ));
    }
    let status = kept.store.status();
    assert!(
        status.ring_events <= 10 && status.watches == 3,
        "{status:?}"
    );
    kept.take(objects(9, vec![put(&node("n1"), "2")]));
    assert_eq!(quiet.next().await.unwrap().revision, 1_003);
    assert_eq!(
        kept.store.status().history_reads,
        0,
        "a quiet watch reads nothing from the disk"
    );
    let mut seen = Vec::new();
    while seen.len() < 1_000 {
        seen.extend(
            slow.next_batch(64)
                .await
                .unwrap()
                .changes
                .iter()
                .map(|change| change.revision),
        );
    }
    assert!(seen.into_iter().eq(3..1_003));
    assert!(timeout(SOON, slow.next()).await.is_err());
    let mut seen = Vec::new();
    while seen.len() < 10 {
        seen.push(one.next().await.unwrap().revision);
    }
    assert!(
        seen.into_iter()
            .eq((0..10).map(|round| 3 + 7 + 100 * round))
    );
    assert!(timeout(SOON, one.next()).await.is_err());
    drop((slow, quiet, one));
    assert_eq!(kept.store.status().watches, 0);
}

#[tokio::test(start_paused = true)]
async fn the_ring_is_bounded_by_bytes_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        ring_bytes: 100_000,
        ..StoreConfig::default()
    };
    let mut kept = Kept::open(&directory(folder.path()), config);
    let value = "x".repeat(10_000);
    let mut watch = kept.store.watch(maps(1)).unwrap();
    for number in 0..100 {
        kept.take(objects(2 + number, vec![put(&map("a"), &value)]));
        assert!(kept.store.status().ring_bytes <= 100_000);
    }
    assert!(kept.store.status().ring_events > 1);
    // One group that alone is larger than the ring passes through it, and is read from the disk.
    kept.take(objects(200, vec![put(&map("b"), &"x".repeat(200_000))]));
    assert_eq!(kept.store.status().ring_events, 0);
    let mut seen = 0;
    while seen < 101 {
        seen += watch.next_batch(1_000).await.unwrap().changes.len();
    }
    assert_eq!(watch.cursor(), 102);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        most_waiting: 2,
        ..StoreConfig::default()
    };
    let kept = Kept::open(&directory(folder.path()), config);
    let error = kept.store.watch(maps(2)).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::FutureRevision {
                asked: 2,
                current: 1
            }
        ),
        "{error}"
    );
    let error = kept.store.all_events(2).err().unwrap();
    assert!(
        matches!(
            error,
            ReadError::FutureRevision {
                asked: 2,
                current: 1
            }
        ),
        "{error}"
    );
    let open = [
        kept.store.watch(maps(0)).unwrap(),
        kept.store.watch(maps(1)).unwrap(),
    ];
    let error = kept.store.watch(maps(0)).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::Store(StoreError::TooMany {
                what: "watches",
                limit: 2
            })
        ),
        "{error}"
    );
    drop(open);
    kept.store.watch(maps(0)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn whole_events_reach_projections() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    let mut events = kept.store.all_events(0).unwrap();
    kept.take(objects(2, vec![put(&map("a"), "1"), put(&map("b"), "1")]));
    let first = events.next_batch(1).await.unwrap();
    assert_eq!((first.len(), first[0].revision()), (1, 1));
    let next = events.next_batch(9).await.unwrap();
    assert_eq!(
        (
            next.len(),
            next[0].envelope.first,
            next[0].revision(),
            next[0].objects.len()
        ),
        (1, 2, 3, 2)
    );
    assert!(timeout(SOON, events.next_batch(1)).await.is_err());
    let mut inside = kept.store.all_events(2).unwrap();
    assert_eq!(
        inside.next_batch(1).await.unwrap()[0].revision(),
        3,
        "from inside an event: that event, whole"
    );
    kept.take(objects(3, vec![]));
    assert_eq!(events.next_batch(1).await.unwrap()[0].revision(), 4);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_revision_or_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    let mut progress = kept.store.changed();
    assert_eq!(progress.now(), (1, 1));
    assert!(timeout(SOON, progress.changed()).await.is_err());
    assert_eq!(
        kept.store.wait_revision(1).await.unwrap().revision,
        1,
        "it is there"
    );
    assert!(timeout(SOON, kept.store.wait_revision(3)).await.is_err());
    let (store, other) = (kept.store.clone(), kept.store.clone());
    let revision = tokio::spawn(async move { store.wait_revision(3).await.unwrap().revision });
    let index = tokio::spawn(async move { other.wait_index(4).await.unwrap().position.index });
    kept.take(objects(2, vec![put(&map("a"), "1")]));
    tokio::time::sleep(SOON).await;
    assert!(!revision.is_finished());
    assert_eq!(progress.changed().await, (2, 2));
    kept.take(objects(3, vec![put(&map("a"), "2")]));
    assert_eq!(revision.await.unwrap(), 3);
    assert!(!index.is_finished());
    kept.apply(vec![vec![]]);
    assert_eq!(index.await.unwrap(), 4);
    assert_eq!(progress.changed().await, (4, 3));
}

/// How many of these watches were served, each time that another task had its turn; until all were or the turns are over.
async fn served_by_turns(paced: bool) -> Vec<usize> {
    const WATCHES: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    let pacing = paced.then(|| {
        let store = kept.store.clone();
        tokio::spawn(async move { store.pace_watches().await })
    });
    let served = Arc::new(AtomicUsize::new(0));
    for _ in 0..WATCHES {
        let mut watch = kept.store.watch(maps(1)).unwrap();
        let served = served.clone();
        tokio::spawn(async move {
            while watch.next_batch(1).await.is_ok() {
                served.fetch_add(1, Relaxed);
            }
        });
    }
    tokio::time::sleep(SOON).await;
    kept.take(objects(2, vec![put(&map("a"), "1")]));
    let mut turns = Vec::new();
    while served.load(Relaxed) < WATCHES && turns.len() < 10_000 {
        // All others have their turn, and time goes on: those who wait for a write's answer come first.
        tokio::time::advance(Duration::from_micros(10)).await;
        turns.push(served.load(Relaxed));
    }
    assert_eq!(served.load(Relaxed), WATCHES);
    if let Some(pacing) = pacing {
        // Nobody keeps the pace any more: the rest is not forgotten.
        kept.take(objects(3, vec![put(&map("a"), "2")]));
        tokio::task::yield_now().await;
        pacing.abort();
        tokio::time::sleep(SOON).await;
        assert_eq!(served.load(Relaxed), 2 * WATCHES);
    }
    turns
}

#[tokio::test(start_paused = true)]
async fn many_watches_take_turns_with_everything_else() {
    let most_at_once = |turns: Vec<usize>| {
        let before = std::iter::once(0).chain(turns.iter().copied());
        let most = turns.iter().zip(before).map(|(now, before)| now - before);
        most.max().unwrap()
    };
    let alone = most_at_once(served_by_turns(false).await);
    assert!(alone > 32, "{alone}: the test can't tell");
    let paced = most_at_once(served_by_turns(true).await);
    assert!(paced <= 32, "{paced}");
}
