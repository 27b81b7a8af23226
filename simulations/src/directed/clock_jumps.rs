//! A wall clock jumps by an hour, one way or the other, the leader's or a follower's: the log's clock does not, and so nothing that hangs on
//! it ends too early or too late.

use super::{Stage, done, play};
use crate::sides::EPOCH_MS;
use crate::workload::prepare;
use eventstore::{Happened, Key};
use http::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const HOUR_MS: i64 = 3_600_000;
const NODES: u32 = 3;
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Name and uid of each pod.
async fn pods(stage: &Stage) -> BTreeSet<String> {
    let pods = done(stage.ask(0, Method::GET, PODS, None).await);
    let items = pods["items"].as_array().unwrap().iter();
    items
        .map(|pod| pod["metadata"]["uid"].to_string())
        .collect()
}

fn all_ready(nodes: &Value) -> bool {
    let nodes = nodes["items"].as_array().unwrap();
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
    };
    nodes.len() == NODES as usize && nodes.iter().all(ready)
}

/// Follows the history from a revision on: no session is lost in it, and stamps are about what the time really is.
fn check_history(stage: &Stage, from: u64, began: Instant) -> u64 {
    let store = stage.core(0).store();
    let upto = store.view().revision;
    let mut before = None;
    for event in store.events(from + 1..=upto, usize::MAX).unwrap() {
        let lost = matches!(event.envelope.happened, Happened::SessionLost { .. });
        assert!(!lost, "a session is lost: {event:?}");
        let time = event.envelope.time;
        assert!(before.is_none_or(|before| before <= time), "{event:?}");
        before = Some(time);
    }
    let real = EPOCH_MS + began.elapsed().as_millis() as i64;
    let off = stage.core(0).now().ms() - real;
    assert!(off.abs() < 5_000, "the log's clock is {off} ms off");
    upto
}

#[test]
fn nothing_ends_early_or_late_by_it() {
    play(async {
        let began = Instant::now();
        let stage = Stage::set(NODES, None).await;
        prepare(
            &stage.cluster.fronts,
            &stage.cluster.net,
            &stage.cluster.names(),
        )
        .await;
        let nodes = "/api/v1/nodes";
        stage
            .until("all nodes ready and all pods there", 60, async || {
                let ready = all_ready(&done(stage.ask(0, Method::GET, nodes, None).await));
                (ready && pods(&stage).await.len() == 6).then_some(())
            })
            .await;
        let (before, mut read) = (pods(&stage).await, stage.core(0).view().revision);
        let sessions: Vec<_> = stage
            .core(0)
            .view()
            .sessions()
            .map(|(_, s)| s.epoch)
            .collect();
        let mut number = 0;
        for off_ms in [HOUR_MS, -HOUR_MS] {
            for leads in [true, false] {
                let leader = stage.leader().unwrap();
                let jumps = if leads { leader } else { stage.followers()[0] };
                stage.cluster.servers[jumps].clock.set_off(off_ms);
                // Long past the grace, with writes all the while.
                for _ in 0..40 {
                    sleep(Duration::from_secs(1)).await;
                    number += 1;
                    done(stage.create(jumps, &format!("map-{number}")).await);
                    let key = Key::new("configmaps", "default", format!("map-{number}"));
                    let made = stage.core(jumps).view().get(&key).unwrap().stamps.created;
                    let real = (EPOCH_MS + began.elapsed().as_millis() as i64) / 1_000;
                    assert!((made.s() - real).abs() <= 3, "stamped {made}, it is {real}");
                }
                // The clock that is off says so, and no other.
                for server in 0..3 {
                    let off = stage.core(server).node().measured().clock_off_ms.unwrap();
                    let want = if server == jumps { off_ms } else { 0 };
                    assert!(
                        (off - want).abs() < 3_000,
                        "{server}: {off} ms off, not {want}"
                    );
                    let warned = stage.status(server).warnings;
                    assert_eq!(warned.len(), usize::from(server == jumps), "{warned:?}");
                }
                // Whoever leads next goes on where the other was, and be it with the clock that is off.
                let next = if leads { stage.followers()[0] } else { jumps };
                let id = stage.status(next).id;
                let node = stage.core(leader).node();
                node.transfer_leadership(Some(id)).await.unwrap();
                sleep(Duration::from_secs(20)).await;
                read = check_history(&stage, read, began);
                stage.cluster.servers[jumps].clock.set_off(0);
                sleep(Duration::from_secs(20)).await;
                read = check_history(&stage, read, began);
            }
        }
        assert!(all_ready(&done(
            stage.ask(0, Method::GET, nodes, None).await
        )));
        assert_eq!(pods(&stage).await, before, "pods were replaced");
        let after: Vec<_> = stage
            .core(0)
            .view()
            .sessions()
            .map(|(_, s)| s.epoch)
            .collect();
        assert_eq!(after, sessions, "sessions were opened anew");
    });
}
