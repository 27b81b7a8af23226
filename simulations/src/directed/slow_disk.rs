//! A follower whose disk takes its time: what the others do for their clients takes no longer for it, and nobody is deposed over it.

use super::{MAPS, Stage, done, play};
use http::Method;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Each write of log or state.
const A_WRITE_TAKES: Duration = Duration::from_secs(2);
const WRITES: usize = 50;

/// The longest of some writes and reads through a server.
async fn longest(stage: &Stage, server: usize, round: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0..WRITES {
        let name = format!("{round}-{server}-{number}");
        let asked = Instant::now();
        done(stage.create(server, &name).await);
        done(
            stage
                .ask(server, Method::GET, &format!("{MAPS}/{name}"), None)
                .await,
        );
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    longest
}

#[test]
fn a_slow_followers_disk_slows_nobody_else() {
    play(async {
        let stage = Stage::set(0, None).await;
        let leader = stage.leader().unwrap();
        let [slow, other] = stage.followers()[..] else {
            panic!("three servers")
        };
        let term = stage.status(leader).term;
        let before = [
            longest(&stage, leader, "before").await,
            longest(&stage, other, "before").await,
        ];

        stage.cluster.servers[slow]
            .runtime
            .set_disk_takes(A_WRITE_TAKES);
        let meanwhile = [
            longest(&stage, leader, "meanwhile").await,
            longest(&stage, other, "meanwhile").await,
        ];
        println!("the longest of {WRITES}: {before:?} before, {meanwhile:?} beside a slow disk");
        for (before, meanwhile) in before.iter().zip(meanwhile) {
            assert!(
                meanwhile <= *before * 2,
                "{meanwhile:?} in place of {before:?}"
            );
        }
        let (there, here) = (stage.status(leader), stage.status(slow));
        assert_eq!((there.term, stage.leader()), (term, Some(leader)));
        assert!(
            here.revision + 10 < there.revision,
            "it was not slow: {here:?}"
        );

        // Its own clients wait for it, and get what they ask for.
        let asked = Instant::now();
        done(stage.create(slow, "through-the-slow-one").await);
        assert!(asked.elapsed() >= A_WRITE_TAKES);

        // Quick again, it has what the others have.
        stage.cluster.servers[slow]
            .runtime
            .set_disk_takes(Duration::ZERO);
        stage
            .until("it to catch up", 10, async || {
                let (there, here) = (stage.status(leader), stage.status(slow));
                (here.revision == there.revision && here.digest == there.digest).then_some(())
            })
            .await;
    });
}
