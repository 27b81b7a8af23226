//! A follower forwards a write and is killed, cut off, or left by its caller before the outcome is back: the write is done once, whoever
//! asks again.

use super::{MAPS, Stage, done, play};
use crate::workload::Answer;
use eventstore::{Event, Happened};
use http::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// It strikes so long after a write was sent, one round each: on the way to the follower, to the leader, and back.
const STRIKES_AFTER_US: std::ops::Range<u64> = 0..30;
const STEP_US: u64 = 100;
/// Longer than a follower waits for one try to forward, which is 5 s: it asks again under the same id.
const CUT_OFF: Duration = Duration::from_secs(7);

fn strikes_after(round: u64) -> Duration {
    Duration::from_micros(round * STEP_US)
}

/// The events that brought ConfigMaps to life whose names begin so.
fn creations(stage: &Stage, prefix: &str) -> Vec<Arc<Event>> {
    let store = stage.core(0).store();
    let upto = store.view().revision;
    let events = store.events(1..=upto, usize::MAX).unwrap();
    let creates = |event: &Arc<Event>| {
        matches!(event.envelope.happened, Happened::Objects(_))
            && event.objects.iter().any(|folded| {
                &*folded.key.resource == "configmaps"
                    && folded.key.name.starts_with(prefix)
                    && folded.before.is_none()
            })
    };
    events.into_iter().filter(creates).collect()
}

/// What became of a request is told under its id, on every server.
async fn check_told(stage: &Stage, created: &Event) {
    let path = format!("/reckon/v1/history?id={}", created.envelope.id.uuid);
    for server in 0..3 {
        let told = done(stage.ask(server, Method::GET, &path, None).await);
        assert_eq!(told["outcome"], "accepted", "{told}");
        assert_eq!(told["revision"], json!(created.revision()), "{told}");
    }
}

/// Its caller gives up, and asks again elsewhere.
fn check_given_up(killed: bool) {
    play(async {
        let mut stage = Stage::set(0, None).await;
        let (mut answered, mut found_done) = (0, 0);
        for round in STRIKES_AFTER_US {
            let name = format!("map-{round}");
            let (follower, leader) = (stage.followers()[0], stage.leader().unwrap());
            let answer = tokio::select! {
                biased;
                answer = stage.create(follower, &name) => Some(answer),
                () = sleep(strikes_after(round)) => None,
            };
            answered += u64::from(matches!(answer, Some(Answer::Done(_))));
            if killed {
                stage.cluster.crash(follower);
            }
            sleep(Duration::from_secs(1)).await;
            match stage.create(leader, &name).await {
                Answer::Done(_) => {}
                Answer::Refused(StatusCode::CONFLICT, _) => found_done += 1,
                answer => panic!("{answer}"),
            }
            if killed {
                stage.cluster.start_at_last(follower).await;
            }
            sleep(Duration::from_secs(2)).await;
        }
        println!("{answered} were answered before it struck, {found_done} were found done");
        // It struck on both sides of the commit.
        assert!(
            found_done > answered && found_done < STRIKES_AFTER_US.end,
            "{answered} answered, {found_done} done"
        );
        for round in STRIKES_AFTER_US {
            let created = creations(&stage, &format!("map-{round}"));
            let exactly = |event: &&Arc<Event>| {
                let name = format!("map-{round}");
                event.objects.iter().any(|folded| *folded.key.name == *name)
            };
            let created: Vec<_> = created.iter().filter(exactly).collect();
            assert_eq!(created.len(), 1, "map-{round}");
            check_told(&stage, created[0]).await;
        }
    });
}

#[test]
fn killed_and_asked_again_elsewhere() {
    check_given_up(true);
}

/// The connection to its caller is cut, and nothing else.
#[test]
fn left_alone_and_asked_again_elsewhere() {
    check_given_up(false);
}

#[test]
fn cut_off_and_asking_again_itself() {
    play(async {
        let stage = Stage::set(0, None).await;
        for round in STRIKES_AFTER_US {
            // Each creation that is accepted makes another object: two would show.
            let prefix = format!("made-{round}-");
            let map = json!({"metadata": {"generateName": prefix}});
            let follower = stage.followers()[0];
            let strike = async {
                sleep(strikes_after(round)).await;
                stage.cut_off(follower);
                sleep(CUT_OFF).await;
                stage.cluster.net.heal();
            };
            let asked = stage.ask(follower, Method::POST, MAPS, Some(&map));
            let (answer, ()) = tokio::join!(asked, strike);
            let made = done(answer);
            let created = creations(&stage, &prefix);
            assert_eq!(created.len(), 1, "{prefix}");
            let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
            assert_eq!(revision, created[0].revision().to_string());
            check_told(&stage, &created[0]).await;
        }
    });
}
