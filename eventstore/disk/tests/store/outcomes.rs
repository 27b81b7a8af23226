//! Outcomes reach those who proposed, once, whenever they ask.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Expected, Outcome, Rejection};
use eventstore_disk::{StoreConfig, StoreError};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn registered_before_during_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, StoreConfig::default());
    let a = map("a");
    let create = |number| {
        expecting(
            objects(number, vec![put(&a, "1"), put(&map("b"), "1")]),
            &a,
            Expected::Absent,
        )
    };
    let mut before = kept.store.expect_outcome(id(2)).unwrap();
    let mut also = kept.store.expect_outcome(id(2)).unwrap();
    let mut refused = kept.store.expect_outcome(id(3)).unwrap();
    assert!(timeout(SOON, before.settled()).await.is_err());
    assert_eq!(kept.store.status().expected, 3);
    kept.apply(vec![vec![create(2)], vec![create(3), create(2)]]);
    for expecting in [&mut before, &mut also] {
        let settled = expecting.settled().await.unwrap();
        assert_eq!(settled.outcome, Outcome::Accepted { first: 2, last: 3 });
        assert_eq!(settled.event.unwrap().objects.len(), 2);
    }
    let settled = refused.settled().await.unwrap();
    let rejection = Rejection::Expectation {
        key: a.clone(),
        expected: Expected::Absent,
        current: Some(2),
    };
    assert_eq!(
        (settled.outcome, settled.event.is_none()),
        (Outcome::Rejected(Box::new(rejection.clone())), true)
    );
    assert_eq!(
        before.settled().await.unwrap().event.unwrap().revision(),
        3,
        "asked again, told again"
    );
    assert_eq!(kept.store.status().expected, 0);
    // Known already, also after a restart: the event comes from history.
    for _ in 0..2 {
        let settled = kept
            .store
            .expect_outcome(id(2))
            .unwrap()
            .settled()
            .await
            .unwrap();
        assert_eq!(
            (settled.outcome, settled.event.unwrap().revision()),
            (Outcome::Accepted { first: 2, last: 3 }, 3)
        );
        let settled = kept
            .store
            .expect_outcome(id(3))
            .unwrap()
            .settled()
            .await
            .unwrap();
        assert_eq!(
            settled.outcome,
            Outcome::Rejected(Box::new(rejection.clone()))
        );
        drop((before, also, refused));
        kept.store.flush().unwrap();
        drop(kept);
        kept = Kept::open(&directory, StoreConfig::default());
        before = kept.store.expect_outcome(id(2)).unwrap();
        also = kept.store.expect_outcome(id(2)).unwrap();
        refused = kept.store.expect_outcome(id(3)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_is_told_of_the_first_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    kept.take(objects(2, vec![put(&map("a"), "1")]));
    kept.take(objects(3, vec![put(&map("a"), "2")]));
    let mut again = kept.store.expect_outcome(id(2)).unwrap();
    kept.apply(vec![vec![objects(2, vec![put(&map("a"), "1")])]]);
    let settled = again.settled().await.unwrap();
    assert_eq!(
        (settled.outcome, settled.event.unwrap().revision()),
        (Outcome::Accepted { first: 2, last: 2 }, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn giving_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        most_waiting: 2,
        ..StoreConfig::default()
    };
    let kept = Kept::open(&directory(folder.path()), config);
    let waiting = [
        kept.store.expect_outcome(id(2)).unwrap(),
        kept.store.expect_outcome(id(3)).unwrap(),
    ];
    let error = kept.store.expect_outcome(id(4)).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::TooMany {
                what: "proposals",
                limit: 2
            }
        ),
        "{error}"
    );
    drop(waiting);
    assert_eq!(kept.store.status().expected, 0);
    for _ in 0..5 {
        assert!(
            timeout(SOON, kept.store.wait_revision(9)).await.is_err(),
            "a wait given up makes room"
        );
    }
}
