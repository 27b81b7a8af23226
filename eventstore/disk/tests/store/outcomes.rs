//! Outcomes reach those who proposed, once, whenever they ask.

use crate::folder::{Kept, directory, faulty};
use crate::language::*;
use eventstore::{Entry, Expected, Outcome, Outcomes, Position, Proposal, Rejection, State};
use eventstore_disk::{StoreConfig, StoreError};
use seams::{Order, Range};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

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
    let mut before = kept.store.expect_outcome(id(2), 0).unwrap();
    let mut also = kept.store.expect_outcome(id(2), 0).unwrap();
    let mut refused = kept.store.expect_outcome(id(3), 0).unwrap();
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
            .expect_outcome(id(2), 0)
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
            .expect_outcome(id(3), 0)
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
        before = kept.store.expect_outcome(id(2), 0).unwrap();
        also = kept.store.expect_outcome(id(2), 0).unwrap();
        refused = kept.store.expect_outcome(id(3), 0).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_is_told_of_the_first_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(&directory(folder.path()), StoreConfig::default());
    kept.take(objects(2, vec![put(&map("a"), "1")]));
    kept.take(objects(3, vec![put(&map("a"), "2")]));
    let mut again = kept.store.expect_outcome(id(2), 0).unwrap();
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
        kept.store.expect_outcome(id(2), 0).unwrap(),
        kept.store.expect_outcome(id(3), 0).unwrap(),
    ];
    let error = kept.store.expect_outcome(id(4), 0).err().unwrap();
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

/// Changes of one entry each, numbered as the entries are: the founding is the first of both.
fn change(number: u64) -> Proposal {
    Proposal {
        first_sent: number - 1,
        ..objects(
            u128::from(number),
            vec![put(&map("a"), &number.to_string())],
        )
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_on_disk_alone_is_read_when_it_may_be_needed() {
    const KEPT: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let (faults, faulty) = faulty(folder.path());
    let config = StoreConfig {
        most_outcomes: 4,
        ..StoreConfig::default()
    };
    let mut kept = Kept::open(&faulty, config.clone());
    for number in 2..=KEPT {
        kept.take(change(number));
    }
    let read = || faults.take_read().get(&'q').copied().unwrap_or_default();
    assert_eq!(read(), 0, "each is sent when the one before is known");
    for restarted in [false, true] {
        if restarted {
            kept.store.flush().unwrap();
            drop(kept);
            kept = Kept::open(&faulty, config.clone());
            assert_eq!(read(), 1, "a start reads the last one");
        }
        // Told to who asks, as far back as it may be.
        for (number, first_sent, known) in [(20, 0, true), (20, 19, true), (20, 20, false)] {
            let mut expecting = kept.store.expect_outcome(id(number), first_sent).unwrap();
            let settled = timeout(SOON, expecting.settled()).await;
            assert_eq!(
                settled.is_ok(),
                known,
                "{number}, first sent at {first_sent}"
            );
            if known {
                let event = settled.unwrap().unwrap().event.unwrap();
                assert_eq!(event.revision(), 20);
            }
            assert!(
                read() <= KEPT - first_sent + 1,
                "first sent at {first_sent}"
            );
        }
        let all = kept.store.outcomes_of(&(2..=KEPT).map(uuid).collect(), 0);
        assert_eq!(all.unwrap().len(), KEPT as usize - 1);
        read();
    }
    // Said again: what lies behind its first sending is read, and no more.
    let repeated = |number: u64| Proposal {
        act: objects(0, vec![put(&map("b"), "")]).act,
        ..change(number)
    };
    let applied = kept.apply(vec![vec![repeated(41)]]);
    assert!(applied[0].events.is_empty() && applied[0].kept.is_empty());
    assert_eq!(read(), 11);
    let applied = kept.apply(vec![vec![repeated(45)], vec![repeated(41)]]);
    assert!(applied.iter().all(|applied| applied.events.is_empty()));
    assert!(read() <= 8, "most of them are in memory");
    let applied = kept.apply(vec![vec![repeated(2)]]);
    assert!(applied[0].events.is_empty());
    assert!(read() > 40);
    // A damaged one is not passed over.
    drop(kept);
    let mut kept = Kept::open(&faulty, config);
    faults.flip(Some(&[b"q", &30_u64.to_be_bytes()[..]].concat()));
    let error = kept.try_apply(vec![vec![repeated(2)]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "database state: outcome 30: corrupt: its checksum is wrong"
    );
    assert!(kept.store.expect_outcome(id(2), 0).is_err());
    assert!(kept.store.expect_outcome(id(2), 45).is_ok());
    faults.flip(None);
    assert!(kept.apply(vec![vec![repeated(2)]])[0].events.is_empty());
}

fn uuid(number: u64) -> Uuid {
    id(u128::from(number)).uuid
}

/// However little of the outcomes is in memory, and however often the store is opened again: what comes of an entry is what comes of it
/// where all are, up to the last that is forgotten; and what is forgotten goes from the disk.
#[test]
fn what_is_kept_and_forgotten_is_so_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let config = StoreConfig {
        most_outcomes: 1_000,
        ..StoreConfig::default()
    };
    let mut kept = Kept::open(&directory, config.clone());
    let mut all = State::default();
    let position = Position { term: 1, index: 1 };
    let founding = Entry {
        clock: START,
        proposals: vec![found()],
    };
    all.apply(position, &founding);
    let (mut number, mut index) = (1_u64, 1_u64);
    let mut draw = 7_u64;
    let mut below = |most: u64| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (draw >> 33) % most
    };
    let (mut repeated, mut refused, mut forgotten) = (0, 0, 0);
    while number < Outcomes::MOST as u64 + 30_000 {
        let full = number > Outcomes::MOST as u64 - 2_000;
        let mut entries = Vec::new();
        for _ in 0..=below(3) {
            let many = if full {
                below(200)
            } else {
                9_000 + below(2_000)
            };
            let mut entry = Vec::new();
            for _ in 0..=many {
                let again = below(400) == 0;
                let which = if again { 1 + below(number) } else { number + 1 };
                number = number.max(which);
                let late = if again { below(40) } else { below(3) };
                entry.push(Proposal {
                    first_sent: index.saturating_sub(late * late),
                    ..objects(u128::from(which), vec![remove(&map("nothing"))])
                });
            }
            entries.push(entry);
        }
        let expected: Vec<_> = kept
            .group(entries.clone())
            .into_iter()
            .map(|(position, entry)| all.apply(position, &entry.unwrap()))
            .collect();
        let applied = kept.apply(entries);
        index += applied.len() as u64;
        for (applied, expected) in applied.iter().zip(&expected) {
            assert_eq!(applied.outcomes, expected.outcomes);
            assert_eq!(applied.kept, expected.kept);
            assert_eq!(applied.forgotten, expected.forgotten);
            repeated += applied.outcomes.len() - applied.kept.len();
            forgotten += applied.forgotten.len();
            let too_old = |outcome: &Outcome| match outcome {
                Outcome::Rejected(why) => matches!(**why, Rejection::TooOld { .. }),
                Outcome::Accepted { .. } => false,
            };
            refused += applied
                .outcomes
                .iter()
                .filter(|(_, outcome)| too_old(outcome))
                .count();
        }
        if below(if full { 20 } else { 4 }) == 0 {
            kept.store.flush().unwrap();
            drop(kept);
            kept = Kept::open(&directory, config.clone());
        }
    }
    println!("{repeated} repeated, {refused} refused, {forgotten} forgotten in {index} entries");
    assert!(repeated > 100 && refused > 0 && forgotten > 20_000);
    drop(kept);
    let disk = directory.open("state", &config.disk).unwrap();
    let records = disk.scan(&Range::prefix(*b"q"), Order::Ascending, 2);
    let starts: Vec<u64> = records
        .unwrap()
        .iter()
        .map(|(key, _)| u64::from_be_bytes(*key.last_chunk().unwrap()))
        .collect();
    let oldest = forgotten as u64 + 1;
    assert!(
        starts[0] <= oldest && oldest < starts[1],
        "{oldest}: {starts:?}"
    );
}
