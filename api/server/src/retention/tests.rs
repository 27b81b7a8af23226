//! What keeps a server from removing what is past, and what it does then.

use super::propose;
use crate::http::tests::{MAPS, Server, Setup, server_with};
use eventstore::Horizons;
use seams::{Runtime, ThreadRuntime, Worker, WorkerError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// It has no thread for removing, as long as it is told so.
#[derive(Default)]
struct Short(AtomicBool);

impl Runtime for Short {
    fn worker(&self, name: &str) -> Result<Box<dyn Worker>, WorkerError> {
        if name == "prune" && self.0.load(Ordering::Relaxed) {
            return Err(WorkerError::NotStarted {
                name: name.to_owned(),
                reason: "there are too many".to_owned(),
            });
        }
        ThreadRuntime.worker(name)
    }
}

async fn metric(server: &Server, name: &str) -> f64 {
    let (_, page) = server.get("/metrics").await;
    let mut lines = page.as_str().unwrap().lines();
    let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

async fn warnings(server: &Server) -> Vec<Value> {
    let (_, status) = server.get("/reckon/v1/status").await;
    status["warnings"].as_array().unwrap().clone()
}

async fn until(what: &str, mut there: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if there().await {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_is_tried_again_and_told_meanwhile() {
    const FAILURES: &str = "reckon_history_prune_failures_total ";
    const EVENTS: &str = "reckon_history_pruned_events_total ";
    let short = Arc::new(Short::default());
    short.0.store(true, Ordering::Relaxed);
    let server = server_with(Setup {
        runtime: short.clone(),
        ..Setup::default()
    })
    .await;
    for number in 0..10 {
        let map = json!({"metadata": {"name": format!("map-{number}")}});
        assert_eq!(server.json("POST", MAPS, map).await.0, 201);
    }
    let horizon = server.core().view().revision;
    let horizons = Horizons {
        all: horizon,
        resources: Vec::new(),
    };
    propose(server.core(), horizons).await;
    assert_eq!(server.core().store().horizon(), horizon);
    until("a second failure", async || {
        metric(&server, FAILURES).await >= 2.0
    })
    .await;
    let told = warnings(&server).await;
    let text = told[0].as_str().unwrap();
    assert!(
        text.contains("not removed") && text.contains("too many"),
        "{text}"
    );
    assert_eq!(metric(&server, EVENTS).await, 0.0);

    short.0.store(false, Ordering::Relaxed);
    until("what is past to go", async || {
        metric(&server, EVENTS).await > 10.0
    })
    .await;
    until("the warning to go", async || {
        warnings(&server).await.is_empty()
    })
    .await;
}

#[test]
fn it_rests_longer_than_a_step_took() {
    // ms of a step, ms of rest
    for (took, rests) in [
        (0, 10),
        (4, 10),
        (6, 12),
        (40, 80),
        (900, 1_800),
        (9_000, 2_000),
    ] {
        let rest = super::rest(Duration::from_millis(took));
        assert_eq!(rest, Duration::from_millis(rests), "{took}");
    }
}
