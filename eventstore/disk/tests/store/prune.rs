//! What one step of pruning takes on is bounded, whatever the events are like.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Act, Actor, Horizons, Proposal};
use eventstore_disk::{Pruned, ReadError, StoreConfig};
use std::path::Path;
use std::time::Duration;

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

/// Bytes of the files of keys and small values, in which events lie.
fn table_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("state")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .sum()
}

/// An event of a KiB that can't be compressed, most of it in its envelope.
fn numbered(number: u64) -> Vec<Proposal> {
    let mut actor = user();
    if let Actor::User { client, .. } = &mut actor {
        let part = |part: u64| {
            let mixed = (number << 8 | part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("{:016x}", mixed ^ mixed >> 29)
        };
        *client = (0..64).map(part).collect::<String>().into();
    }
    let key = map(&format!("map-{}", number % 50));
    let change = put(&key, &number.to_string());
    let proposal = objects(1_000 + u128::from(number), vec![change]);
    vec![of(proposal, actor)]
}

/// A horizon that moves on with history, and at the end to its last thousand.
#[test]
fn the_room_of_pruned_events_is_given_back_and_no_other_is_written_again() {
    const EVENTS: u64 = 50_000;
    const STEP: u64 = 500;
    const KEPT: u64 = 10_000;
    const LEFT: u64 = 1_000;
    const BUFFER_BYTES: usize = 1 << 20;
    /// What was just flushed, what is worth a flush, and what lies beside events.
    const FEW_BYTES: u64 = 16 * BUFFER_BYTES as u64;
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut config = StoreConfig::default();
    config.disk.write_buffer_bytes = BUFFER_BYTES;
    let mut kept = Kept::open(&directory, config.clone());
    kept.take(of(proposal(200, Act::RaiseLevel { level: 2 }), server()));
    let mut number = 200;
    let mut prune = |kept: &mut Kept, left: u64| {
        number += 1;
        let asked = Horizons {
            all: kept.store.view().revision - left,
            resources: Vec::new(),
        };
        kept.take(proposal(number, Act::Prune(asked)));
        while kept.store.prune(MOST_EVENTS).unwrap().more {}
    };
    let mut most = 0;
    for from in (0..EVENTS).step_by(STEP as usize) {
        kept.apply((from..from + STEP).map(numbered).collect());
        if from + STEP == KEPT {
            kept.store.flush().unwrap();
            println!("{} bytes are alive", table_bytes(folder.path()));
        } else if from >= KEPT {
            prune(&mut kept, KEPT);
            most = most.max(table_bytes(folder.path()));
        }
    }
    let written = kept.store.disk_statistics();
    println!("at the most {most} bytes were there: {written:?}");
    prune(&mut kept, LEFT);
    // What earlier steps have forgotten goes with the next. RocksDB removes no file while an older one is being written.
    let mut left = most;
    for _ in 0..100 {
        kept.store.prune(MOST_EVENTS).unwrap();
        left = table_bytes(folder.path());
        if left < FEW_BYTES {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{left} bytes are left");
    drop(kept);

    let kept = Kept::open(&directory, config);
    let horizon = kept.store.horizon();
    let newest = kept.store.view().revision;
    assert!(horizon + LEFT >= newest - 1);
    let verified = kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
    assert_eq!(verified.revision, newest);
    let before = kept.store.recorded_at(horizon - 1);
    assert!(
        matches!(before, Err(ReadError::Compacted { .. })),
        "{before:?}"
    );
    assert!(left < FEW_BYTES, "{left} bytes are left");
    assert!(
        4 * written.compaction_bytes < written.flush_bytes,
        "{written:?}"
    );
}
