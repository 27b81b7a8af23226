//! A snapshot takes the place of a store that lags, under its readers.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Outcome, Proposal};
use eventstore_disk::{StoreConfig, StoreError, WatchRequest};

fn change(number: u64) -> Proposal {
    objects(
        u128::from(number),
        vec![put(&map(&format!("m{}", number % 7)), &number.to_string())],
    )
}

#[tokio::test(start_paused = true)]
async fn readers_waiters_and_watches_go_over() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut leader = Kept::named(&directory, "leader", StoreConfig::default());
    let mut lagging = Kept::named(&directory, "lagging", StoreConfig::default());
    for number in 2..=5 {
        leader.take(change(number));
        lagging.take(change(number));
    }
    for number in 6..=50 {
        leader.take(change(number));
    }
    let (position, metadata) = leader.store.checkpoint("snapshot").unwrap();
    assert_eq!((position.index, &metadata[..]), (50, &b"as of 50"[..]));
    leader.take(change(51));
    let store = &lagging.store;
    let was = store.view();
    let request = WatchRequest {
        resource: "configmaps".into(),
        namespace: None,
        name: None,
        from: 3,
    };
    let mut watch = store.watch(request).unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 4);
    let mut events = store.all_events(5).unwrap();
    let (mut known, mut unknown) = (
        store.expect_outcome(id(40), 0).unwrap(),
        store.expect_outcome(id(51), 0).unwrap(),
    );
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.wait_revision(50).await.unwrap().digest })
    };
    let mut progress = store.changed();
    tokio::task::yield_now().await;
    let mut reader = Some(store.clone());

    let retired = store.switch("snapshot").unwrap();
    let now = store.view();
    assert_eq!(
        (
            now.position,
            now.revision,
            store.flushed(),
            store.applied().1
        ),
        (position, 50, position, metadata)
    );
    assert_eq!(
        now.digest,
        leader.store.recorded_at(50).unwrap().unwrap().digest
    );
    assert_eq!(was.revision, 5, "a view that was taken stands still");
    assert_eq!(waiting.await.unwrap(), now.digest);
    assert_eq!(progress.changed().await, (50, 50));
    let settled = known.settled().await.unwrap();
    assert_eq!(
        (settled.outcome, settled.event.unwrap().revision()),
        (
            Outcome::Accepted {
                first: 40,
                last: 40
            },
            40
        )
    );
    for revision in 5..=50 {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    let mut seen = 5;
    while seen < 50 {
        for event in events.next_batch(7).await.unwrap() {
            seen += 1;
            assert_eq!(event.revision(), seen);
        }
    }
    reader.take();
    assert!(retired.is_free(), "no one reads the old database any more");
    assert_eq!(retired.name, "lagging");
    directory.remove(&retired.name).unwrap();

    // And it goes on applying, in the new one.
    lagging.take(change(51));
    assert_eq!(
        unknown.settled().await.unwrap().outcome,
        Outcome::Accepted {
            first: 51,
            last: 51
        }
    );
    assert_eq!(watch.next().await.unwrap().revision, 51);
    assert_eq!(lagging.store.view().digest, leader.store.view().digest);
    lagging.store.verify(0..=u64::MAX, |_| {}).unwrap();
}

#[test]
fn an_older_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    kept.store.checkpoint("older").unwrap();
    assert!(
        matches!(kept.store.checkpoint("older"), Err(StoreError::Disk(_))),
        "it is there already"
    );
    kept.take(change(2));
    let error = kept.store.switch("older").err().unwrap();
    assert!(matches!(error, StoreError::OutOfOrder { .. }), "{error}");
    kept.take(change(3));
    assert_eq!(kept.store.view().revision, 3);
}
