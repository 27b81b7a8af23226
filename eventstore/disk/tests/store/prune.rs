//! What one step of pruning takes on is bounded, whatever the events are like.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Act, Horizons};
use eventstore_disk::{Pruned, StoreConfig};

/// Events of so many changes each.
const CHANGES: usize = 1_000;
const EVENTS: u128 = 8;
/// As many as the server asks for.
const MOST_EVENTS: usize = 256;

/// Two records for each change, the replaced version and what else there may be of it; a step ends with the event that fills it.
const RECORDS_MAX: u64 = 2 * (2_000 + CHANGES as u64);

fn check_steps(kept: &Kept, events: u64) {
    let (mut steps, mut gone) = (0, 0);
    loop {
        let pruned = kept.store.prune(MOST_EVENTS).unwrap();
        assert!(pruned.records <= RECORDS_MAX, "{pruned:?}");
        (steps, gone) = (steps + 1, gone + pruned.events);
        if !pruned.more {
            break;
        }
    }
    assert!(steps >= EVENTS / 3, "all in {steps} steps");
    assert_eq!(gone, events);
    assert_eq!(kept.store.prune(MOST_EVENTS).unwrap(), Pruned::default());
    kept.store
        .verify(kept.store.horizon()..=u64::MAX, |_| {})
        .unwrap();
}

#[test]
fn a_step_ends_where_events_have_many_changes() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, StoreConfig::default());
    kept.take(of(proposal(200, Act::RaiseLevel { level: 2 }), server()));
    let mut newest = 0;
    for number in 0..EVENTS {
        let changes =
            (0..CHANGES).map(|name| put(&map(&format!("map-{name}")), &number.to_string()));
        newest = kept.take(objects(2 + number, changes.collect()));
    }
    let before: Vec<_> = kept.store.view().objects().cloned().collect();
    let founded = newest - EVENTS as u64 * CHANGES as u64;
    // By a horizon of the resource's own, and then by all history's.
    let asked = Horizons {
        all: 0,
        resources: vec![("configmaps".into(), newest)],
    };
    kept.take(proposal(100, Act::Prune(asked)));
    check_steps(&kept, founded + EVENTS as u64 - 1);
    let asked = Horizons {
        all: newest,
        resources: Vec::new(),
    };
    kept.take(proposal(101, Act::Prune(asked)));
    check_steps(&kept, founded + EVENTS as u64 - 1);
    let after: Vec<_> = kept.store.view().objects().cloned().collect();
    assert_eq!(after, before);
}
