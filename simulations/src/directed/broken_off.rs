//! A snapshot that breaks off on its way, because the wire goes or because who receives it dies, starts over and does no harm; the
//! others serve meanwhile.

use super::{MAPS, Stage, done, play};
use http::Method;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// So that the database takes several pieces of a megabyte.
const LARGE: usize = 600 << 10;
const LARGE_ONES: usize = 12;

#[test]
fn a_snapshot_starts_over() {
    play(async {
        let mut stage = Stage::set(0, None).await;
        let leader = stage.leader().unwrap();
        let lagging = stage.followers()[0];
        let name = stage.name(lagging);
        let has = stage.core(lagging).node().status().applied;
        stage.cluster.crash(lagging);
        // The large ones make snapshots, and behind those the log reaches back less far than the small ones.
        for number in 0..100 {
            done(stage.create(leader, &format!("small-{number}")).await);
        }
        for number in 0..LARGE_ONES {
            let large = json!({
                "metadata": {"name": format!("large-{number}")},
                "data": {"text": format!("{number:03}").repeat(LARGE / 3)},
            });
            let made = stage.ask(leader, Method::POST, MAPS, Some(&large)).await;
            done(made);
        }
        stage
            .until("the log to be cut off behind it", 60, async || {
                (stage.core(leader).node().status().purged > has).then_some(())
            })
            .await;
        let before = stage.cluster.snapshots_installed();
        stage.cluster.start(lagging).await.unwrap();

        for broken in ["the wire is cut", "it dies"] {
            let whole = stage.core(leader).store().view();
            let disks = stage.cluster.servers[lagging].disks.clone();
            let begun = Instant::now();
            while disks.received_bytes() == 0 {
                let stands = stage.core(lagging).store().view().revision;
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "{broken}: nothing came; it stands at {stands}, the leader at {}, installed {} then {before}",
                    whole.revision,
                    stage.cluster.snapshots_installed(),
                );
                sleep(Duration::from_micros(200)).await;
            }
            assert!(
                disks.received_bytes() < LARGE * LARGE_ONES,
                "{broken}: all of it has come at once"
            );
            assert!(stage.core(lagging).store().view().revision < whole.revision);
            if broken == "it dies" {
                stage.cluster.crash(lagging);
            } else {
                stage.cut_off(lagging);
            }
            // The others do not wait for it.
            for round in 0..5 {
                let asked = Instant::now();
                let name = format!("meanwhile-{}-{round}", broken.replace(' ', "-"));
                done(stage.create(leader, &name).await);
                assert!(asked.elapsed() < Duration::from_secs(1), "{broken}");
            }
            sleep(Duration::from_secs(3)).await;
            assert!(
                stage.cluster.snapshots_installed() == before,
                "{broken}: half a snapshot was taken for one"
            );
            if broken == "it dies" {
                stage.cluster.start(lagging).await.unwrap();
            } else {
                stage.cluster.net.heal();
            }
        }

        stage
            .until("it to be rebuilt", 60, async || {
                let (its, whole) = (stage.core(lagging), stage.core(leader));
                let (its, whole) = (its.store().view(), whole.store().view());
                (its.revision == whole.revision && its.digest == whole.digest).then_some(())
            })
            .await;
        assert!(stage.cluster.snapshots_installed() > before);
        let store = stage.core(lagging).store().clone();
        store.verify(1..=store.view().revision, |_| ()).unwrap();
        // Nothing is left of the tries.
        let disks = &stage.cluster.servers[lagging].disks;
        assert_eq!(disks.received_bytes(), 0);
        let received = disks.directory().list().unwrap();
        let received = received.iter().filter(|name| name.starts_with("received-"));
        assert_eq!(received.count(), 1, "{name}: the one that it stands on");
    });
}
