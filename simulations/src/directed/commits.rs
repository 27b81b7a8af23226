//! A follower that nobody asks anything learns of commits now and then, while writes follow each other closely; one whose callers wait
//! for them learns at once.

use super::*;
use eventstore::{Act, Actor, Cause, Intent};
use server::core::Draft;

const ROUNDS: u32 = 60;
/// Before each, so many writes that follow each other.
const WRITES: u32 = 80;

/// A write to the log, without a client's way there.
async fn write(core: &Core) -> u64 {
    let draft = Draft {
        intent: Intent::Hold,
        expectations: Vec::new(),
        act: Act::Hold {
            name: "held".into(),
            revision: 1,
        },
    };
    let name = "test".into();
    let mut request = core.request(Actor::Server { name }, Cause::default());
    let proposed = core.propose(&mut request, draft, Instant::now() + ANSWER_TIMEOUT);
    proposed.await.unwrap().revision()
}

/// The least and the most time that one of many takes, each begun at its own moment after writes by the leader.
async fn times(leader: &Core, mut one: impl AsyncFnMut()) -> (Duration, Duration) {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..WRITES + round % 3 {
            write(leader).await;
        }
        sleep(Duration::from_millis(u64::from(round % 5))).await;
        let started = Instant::now();
        one().await;
        times.push(started.elapsed());
    }
    (*times.iter().min().unwrap(), *times.iter().max().unwrap())
}

#[test]
fn neither_writes_nor_reads_through_a_follower_wait_for_a_commit_to_be_told() {
    play(async {
        let stage = Stage::set(0, None).await;
        let leader = stage.core(stage.leader().unwrap()).clone();
        let follower = stage.core(stage.followers()[0]).clone();
        let deadline = || Instant::now() + ANSWER_TIMEOUT;
        let lag = times(&leader, async || {
            let revision = leader.view().revision;
            assert!(follower.not_older_than(revision, deadline()).await.is_ok());
        });
        let lag = lag.await;
        let read = times(&leader, async || {
            assert!(follower.linearizable(deadline()).await.is_ok());
        });
        let read = read.await;
        let followed = times(&leader, async || {
            write(&follower).await;
        });
        let followed = followed.await;
        // A way between servers takes a millisecond. Who asked nobody sees it when it is told, a moment later. A write may find a message
        // under way to the follower, which has to be answered first.
        let ms = Duration::from_millis;
        assert!(lag.0 == ms(0) && lag.1 > ms(1) && lag.1 <= ms(6), "{lag:?}");
        assert!(read.0 == ms(2) && read.1 <= ms(3), "{read:?}");
        assert!(followed.0 == ms(4) && followed.1 <= ms(6), "{followed:?}");
    });
}
