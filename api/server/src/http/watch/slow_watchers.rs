//! Watchers that do not read, while much is written.

use crate::http::respond::Body;
use crate::http::tests::{MAPS, Server, server};
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Each change holds two versions of this in memory: a few hundred fill the ring of 64 MiB.
const BYTES: usize = 64 << 10;
const WATCHERS: usize = 16;
const WRITERS: usize = 8;
/// Before there are watchers, and while they are stuck.
const ROUNDS: (u32, u32) = (40, 200);

async fn patch(server: &Server, writer: usize, round: u32) -> Duration {
    let filler = char::from(b'a' + (round % 26) as u8).to_string();
    let data = json!({"data": {"round": round.to_string(), "filler": filler.repeat(BYTES)}});
    let began = Instant::now();
    let path = format!("{MAPS}/map-{writer}");
    let (code, answer) = server.json("PATCH", &path, data).await;
    assert_eq!(code, 200, "{answer}");
    began.elapsed()
}

/// The middle of what each write took, all writers at it at once.
async fn write(server: &Server, rounds: std::ops::Range<u32>) -> Duration {
    let writers = (0..WRITERS).map(|writer| {
        let rounds = rounds.clone();
        async move {
            let mut took = Vec::new();
            for round in rounds {
                took.push(patch(server, writer, round).await);
            }
            took
        }
    });
    let mut took: Vec<_> = join_all(writers).await.into_iter().flatten().collect();
    took.sort();
    took[took.len() / 2]
}

/// Reads on until there is this much.
async fn events(body: &mut Body, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    let mut rest = Vec::new();
    while events.len() < count {
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("{} of {count} came", events.len()));
        rest.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            events.push(serde_json::from_slice(&line).unwrap());
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_slows_nobody_and_misses_nothing() {
    let server = server().await;
    for writer in 0..WRITERS {
        let map = json!({"metadata": {"name": format!("map-{writer}")}});
        assert_eq!(server.json("POST", MAPS, map).await.0, 201);
    }
    let alone = write(&server, 0..ROUNDS.0).await;
    let from = server.core().view().revision;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let path = format!("{MAPS}?watch=1&resourceVersion={from}");
        watchers.push(server.open(&path).await);
    }
    let before = server.core().store().status();
    let watched = write(&server, ROUNDS.0..ROUNDS.1).await;
    let after = server.core().store().status();
    println!("a write took {alone:?} alone, {watched:?} with {WATCHERS} watchers that do not read");
    assert!(
        watched < alone * 2 + Duration::from_millis(20),
        "{watched:?} in place of {alone:?}"
    );
    // What they have not read is not kept for them: far more was written than is in memory, and that is bounded.
    let written = (ROUNDS.1 - ROUNDS.0) as usize * WRITERS * BYTES;
    assert!(written > 64 << 20, "{written}");
    assert!(after.ring_bytes <= 64 << 20, "{} bytes", after.ring_bytes);
    assert!(after.ring_events < (after.events - before.events) as usize);

    // Each gets every change, in order, the most of them from history.
    let count = (ROUNDS.1 - ROUNDS.0) as usize * WRITERS;
    for body in &mut watchers[..2] {
        let events = events(body, count).await;
        let mut rounds = [ROUNDS.0; WRITERS];
        let mut revision = from;
        for event in &events {
            assert_eq!(event["type"], "MODIFIED");
            let object = &event["object"];
            let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
            let at = number(&object["metadata"]["resourceVersion"]);
            assert!(at > revision, "{at} after {revision}");
            revision = at;
            let name = object["metadata"]["name"].as_str().unwrap();
            let writer: usize = name.trim_start_matches("map-").parse().unwrap();
            assert_eq!(number(&object["data"]["round"]), u64::from(rounds[writer]));
            rounds[writer] += 1;
        }
        assert_eq!(rounds, [ROUNDS.1; WRITERS]);
    }
    let read = server.core().store().status().history_reads;
    assert!(read > after.history_reads, "{read}");
}
