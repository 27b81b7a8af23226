//! Servers that start: all at once they are led in a moment, and one alone leaves who leads in peace.

use super::{Stage, done, play};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Less than the shortest time after which a follower misses its leader.
const LED_WITHIN: Duration = Duration::from_millis(150);
const ROUNDS: usize = 20;

#[test]
fn all_that_start_are_led_in_a_moment() {
    play(async {
        let mut stage = Stage::set(0, None).await;
        let mut longest = Duration::ZERO;
        for round in 0..ROUNDS {
            done(stage.create(0, &format!("before-{round}")).await);
            let term = stage.status(0).term;
            (0..3).for_each(|index| stage.cluster.crash(index));
            for index in 0..3 {
                stage.cluster.start(index).await.unwrap();
            }
            let started = Instant::now();
            while stage.leader().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            longest = longest.max(started.elapsed());
            assert_eq!(stage.status(0).term, term + 1, "one election is enough");
        }
        println!("the longest of {ROUNDS} times without a leader: {longest:?}");
        assert!(longest < LED_WITHIN, "{longest:?}");
    });
}

#[test]
fn one_that_starts_disturbs_no_leader() {
    play(async {
        let mut stage = Stage::set(0, None).await;
        let leader = stage.leader().unwrap();
        let term = stage.status(leader).term;
        for index in stage.followers() {
            stage.cluster.crash(index);
            stage.cluster.start(index).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(
                (stage.leader(), stage.status(leader).term),
                (Some(leader), term)
            );
        }
    });
}
