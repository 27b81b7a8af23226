//! A follower that hears no other server, while clients still reach it, answers nothing that may be over; what may be old it serves.

use super::{MAPS, Stage, done, play, refused};
use http::{Method, StatusCode};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// raft gives a read 5 s in all.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn it_refuses_what_it_can_not_confirm_and_serves_what_may_be_old() {
    play(async {
        let stage = Stage::set(0, None).await;
        let alone = stage.followers()[0];
        let other = stage.leader().unwrap();
        done(stage.create(alone, "before").await);
        let path = format!("{MAPS}/before");
        stage.cut_off(alone);
        let mut longest = Duration::ZERO;
        for round in 0..10 {
            // The others go on: what it has is older with each round.
            done(stage.create(other, &format!("meanwhile-{round}")).await);
            done(
                stage
                    .ask(
                        other,
                        Method::PATCH,
                        &path,
                        Some(&serde_json::json!({"data": {"round": round.to_string()}})),
                    )
                    .await,
            );
            // Those that must see it: an object, a list, a list from a revision on, a read of what it lacks.
            for path in [
                path.clone(),
                MAPS.to_owned(),
                format!("{MAPS}/meanwhile-{round}"),
            ] {
                let asked = Instant::now();
                let (code, message) = refused(stage.ask(alone, Method::GET, &path, None).await);
                assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{path}: {message}");
                longest = longest.max(asked.elapsed());
            }
            // Those that may be old are answered at once, from what it has.
            let asked = Instant::now();
            for old in [
                format!("{path}?resourceVersion=0"),
                format!("{MAPS}?resourceVersion=0"),
            ] {
                let answer = done(stage.ask(alone, Method::GET, &old, None).await);
                let text = answer.to_string();
                assert!(text.contains("before") && !text.contains("round"), "{text}");
            }
            assert!(asked.elapsed() < Duration::from_millis(100));
            sleep(Duration::from_secs(1)).await;
        }
        println!("the longest refusal took {:.2} s", longest.as_secs_f32());
        assert!(longest < REFUSED_WITHIN, "{longest:?}");
        // A write is refused too, in the time that it is given.
        let map = serde_json::json!({"metadata": {"name": "never"}});
        let asked = Instant::now();
        let answer = stage
            .ask(
                alone,
                Method::POST,
                &format!("{MAPS}?timeout=3s"),
                Some(&map),
            )
            .await;
        assert!(
            !matches!(answer, crate::workload::Answer::Done(_)),
            "{answer}"
        );
        assert!(asked.elapsed() < Duration::from_secs(4));

        // Let back, it answers with the latest.
        stage.cluster.net.heal();
        let latest = stage
            .until("it to answer again", 10, async || {
                match stage.ask(alone, Method::GET, &path, None).await {
                    crate::workload::Answer::Done(object) => Some(object),
                    _ => None,
                }
            })
            .await;
        assert_eq!(latest["data"]["round"], "9");
    });
}
