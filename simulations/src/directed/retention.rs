//! History that is kept for ten minutes goes by the log's clock: a wall clock's jump, the leader's or a follower's, takes nothing early
//! and keeps nothing longer, whoever leads.

use super::{MAPS, Stage, done, play, refused};
use crate::sides::EPOCH_MS;
use http::{Method, StatusCode};
use server::config::{HistoryRetention, Retain};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const AGE_S: u64 = 600;
const HOUR_MS: i64 = 3_600_000;
/// How far the log's clock may be from what the time really is.
const CLOCK_OFF_S: u64 = 5;
/// A horizon moves by a hundred revisions at the least, here one a second, and is looked at every ten seconds.
const LATE_MAX_S: u64 = 130;

/// A write's revision, and how long after the beginning it was.
type Written = (u64, Duration);

/// What is so young is there, what is so old is not; says where the horizon is.
fn check_horizon(stage: &Stage, written: &[Written], began: Instant) -> u64 {
    let now = began.elapsed();
    let mut horizons = Vec::new();
    for server in 0..3 {
        let horizon = stage.core(server).store().horizon();
        for (revision, at) in written {
            let age_s = (now - *at).as_secs();
            let young = age_s + CLOCK_OFF_S < AGE_S;
            let old = age_s > AGE_S + LATE_MAX_S;
            assert!(
                !(young && *revision < horizon || old && *revision >= horizon),
                "server {server}'s horizon is {horizon}, and revision {revision} is {age_s} s old"
            );
        }
        horizons.push(horizon);
    }
    horizons.into_iter().min().unwrap()
}

/// Reads behind the horizon are refused everywhere, with where it is.
async fn check_refused(stage: &Stage, first: u64) {
    for server in 0..3 {
        let path = format!("/at/{first}{MAPS}/first");
        let (code, message) = refused(stage.ask(server, Method::GET, &path, None).await);
        let horizon = stage.core(server).store().horizon();
        assert_eq!(code, StatusCode::GONE);
        assert!(
            message.contains(&format!("horizon {horizon}")),
            "{message}, it is {horizon}"
        );
    }
}

#[test]
fn ages_go_by_the_logs_clock() {
    play(async {
        let began = Instant::now();
        let stage = Stage::keeping(HistoryRetention {
            all: Retain::AgeS(AGE_S),
            ..HistoryRetention::default()
        })
        .await;
        let made = done(stage.create(0, "first").await);
        let version = made["metadata"]["resourceVersion"].as_str().unwrap();
        let first: u64 = version.parse().unwrap();
        let mut written = vec![(first, began.elapsed())];
        let (mut jumped, mut horizons) = (Vec::new(), Vec::new());
        for second in 0..1_800_u64 {
            // (when, by how much, whose): before anything is old enough, and while it goes.
            let jumps = [
                (60, HOUR_MS, true),
                (180, HOUR_MS, false),
                (300, -HOUR_MS, true),
                (900, HOUR_MS, true),
                (1_100, -HOUR_MS, false),
            ];
            if let Some((_, off_ms, leads)) = jumps.into_iter().find(|(at, ..)| *at == second) {
                let leader = stage.leader().unwrap();
                let index = if leads { leader } else { stage.followers()[0] };
                stage.cluster.servers[index].clock.set_off(off_ms);
                jumped.push(index);
            }
            // Half a minute later it leads, if it did not, or another does.
            if jumps.iter().any(|(at, ..)| at + 30 == second) {
                let (leader, jumped) = (stage.leader().unwrap(), *jumped.last().unwrap());
                let next = if leader == jumped {
                    stage.followers()[0]
                } else {
                    jumped
                };
                let node = stage.core(leader).node();
                let next = Some(stage.status(next).id);
                node.transfer_leadership(next).await.unwrap();
            }
            // A minute later it is right again.
            if jumps.iter().any(|(at, ..)| at + 60 == second) {
                let jumped = &stage.cluster.servers[*jumped.last().unwrap()];
                jumped.clock.set_off(0);
            }
            sleep(Duration::from_secs(1)).await;
            let at = began.elapsed();
            let made = done(stage.create(0, &format!("map-{second}")).await);
            let version = made["metadata"]["resourceVersion"].as_str().unwrap();
            written.push((version.parse().unwrap(), at));
            horizons.push(check_horizon(&stage, &written, began));
        }
        assert_eq!(jumped.len(), 5);
        let off = stage.core(0).now().ms() - EPOCH_MS - began.elapsed().as_millis() as i64;
        assert!(off.abs() < CLOCK_OFF_S as i64 * 1_000, "{off} ms off");
        horizons.dedup();
        assert!(horizons.len() > 8, "it moved to {horizons:?}");
        check_refused(&stage, first).await;
    });
}
