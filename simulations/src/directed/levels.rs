//! A server of the release before among those of this one. A new cluster begins at the level that it reads too, and the log's level stays
//! as long as it may still be there; where the level is raised all the same, it stops before it applies that, says what to do, and goes on
//! from its own data once it is upgraded.

use super::{MAPS, Stage, cluster, done, play};
use crate::workload::ANSWER_TIMEOUT;
use eventstore::{Act, Actor, Cause, Happened, Intent, LEVEL};
use http::Method;
use serde_json::json;
use server::core::Draft;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const OLD: u32 = LEVEL - 1;
/// Every program reads it.
const FIRST: u32 = 1;
/// The leader looks every 5 s whether the level can rise: several times.
const LOOKS: Duration = Duration::from_secs(16);

/// Two upgraded servers, one of which leads, and the index of one that runs the release before.
async fn mixed() -> (Stage, usize) {
    let mut servers = cluster(3);
    servers.begin_old();
    let mut stage = Stage::of(servers, 0).await;
    let old = stage.followers()[0];
    for index in (0..3).filter(|index| *index != old) {
        stage.cluster.crash(index);
        stage.cluster.upgrade(index);
        stage.cluster.start_at_last(index).await;
        stage.until("a leader", 20, async || stage.leader()).await;
    }
    while stage.leader() == Some(old) {
        stage.cluster.crash(old);
        stage
            .until("another leader", 20, async || stage.leader())
            .await;
        stage.cluster.start_at_last(old).await;
    }
    (stage, old)
}

fn check_level(stage: &Stage, level: u32, when: &str) {
    for (_, server, parts) in stage.cluster.alive() {
        let is = parts.core.view().level;
        assert_eq!(is, level, "{} {when}", server.name);
    }
}

/// Whoever leads raises the level without asking anybody.
async fn raise(stage: &Stage) -> u64 {
    let core = stage.core(stage.leader().unwrap());
    let draft = Draft {
        intent: Intent::Reconcile {
            what: "raise the level".into(),
        },
        expectations: Vec::new(),
        act: Act::RaiseLevel { level: LEVEL },
    };
    let name = "test".into();
    let mut request = core.request(Actor::Server { name }, Cause::default());
    let proposed = core.propose(&mut request, draft, Instant::now() + ANSWER_TIMEOUT);
    proposed.await.unwrap().revision()
}

/// Why a server stopped.
async fn stopped(stage: &Stage, index: usize) -> String {
    stage
        .until("it to stop", 30, async || {
            stage.core(index).node().status().failed.clone()
        })
        .await
}

async fn catches_up(stage: &Stage, index: usize) {
    stage
        .until("it to catch up", 60, async || {
            let leader = stage.core(stage.leader()?).view();
            let its = stage.core(index).view();
            (its.digest == leader.digest && its.level == LEVEL).then_some(())
        })
        .await;
    let store = stage.core(index).store().clone();
    store.verify(1..=store.view().revision, |_| ()).unwrap();
}

#[test]
fn the_level_waits_for_the_last_server() {
    play(async {
        let (mut stage, old) = mixed().await;
        let leader = stage.leader().unwrap();
        sleep(LOOKS).await;
        check_level(&stage, OLD, "while an old server answers");
        stage.cut_off(old);
        sleep(LOOKS).await;
        check_level(&stage, OLD, "while one is cut off");
        stage.cluster.net.heal();
        stage.cluster.crash(old);
        sleep(LOOKS).await;
        check_level(&stage, OLD, "while one is dead");
        assert_eq!(
            stage.leader(),
            Some(leader),
            "the same one looked all the while"
        );
        stage.cluster.upgrade(old);
        stage.cluster.start_at_last(old).await;
        rises(&stage).await;
    });
}

async fn rises(stage: &Stage) {
    stage
        .until("the level to rise", LOOKS.as_secs(), async || {
            let mut alive = stage.cluster.alive();
            alive
                .all(|(_, _, parts)| parts.core.view().level == LEVEL)
                .then_some(())
        })
        .await;
}

/// A new cluster that a new server comes to lead: which of the servers are old, when the last of them comes (the others don't wait for
/// it), the level that the cluster begins at, and within how long it does.
type Begins = (&'static [usize], Duration, u32, Duration);

/// The last server, which may come late.
const LAST: usize = 2;
const AT_ONCE: Duration = Duration::ZERO;
/// While the founder still asks, and after it has given up.
const A_LITTLE_LATE: Duration = Duration::from_secs(3);
const LATE: Duration = Duration::from_secs(15);
/// An election, and no wait.
const SOON: Duration = Duration::from_secs(1);
/// The founder asks for 5 s.
const GIVEN_UP: Duration = Duration::from_secs(6);

const BEGINS: &[Begins] = &[
    (&[], AT_ONCE, LEVEL, SOON),
    (&[LAST], AT_ONCE, OLD, SOON),
    (&[1, LAST], AT_ONCE, OLD, SOON),
    (
        &[],
        A_LITTLE_LATE,
        LEVEL,
        A_LITTLE_LATE.saturating_add(SOON),
    ),
    (
        &[LAST],
        A_LITTLE_LATE,
        OLD,
        A_LITTLE_LATE.saturating_add(SOON),
    ),
    // Nobody knows what comes.
    (&[], LATE, FIRST, GIVEN_UP),
    (&[LAST], LATE, FIRST, GIVEN_UP),
];

#[test]
fn a_new_cluster_begins_at_a_level_that_all_read() {
    for begins in BEGINS {
        play(check_begins(begins));
    }
}

async fn check_begins(begins: &Begins) {
    let (old, late, level, within) = *begins;
    let mut cluster = cluster(3);
    cluster.begin_old();
    for index in (0..3).filter(|index| !old.contains(index)) {
        cluster.upgrade(index);
    }
    let started = Instant::now();
    for index in 0..LAST {
        cluster.start(index).await.unwrap();
    }
    let nodes = Vec::new();
    let mut stage = Stage { cluster, nodes };
    let mut began = None;
    while began.is_none() || stage.cluster.alive().count() < 3 {
        let elapsed = started.elapsed();
        assert!(elapsed < LATE + LOOKS, "{begins:?}: not founded");
        if elapsed >= late && stage.cluster.alive().count() < 3 {
            stage.cluster.start(LAST).await.unwrap();
        }
        if began.is_none() {
            began = begun_at(&stage).map(|level| (level, elapsed));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let (at, after) = began.unwrap();
    assert!(
        at == level && after <= within,
        "{begins:?}: level {at} after {after:?}"
    );
    assert_eq!(stage.leader(), Some(0), "{begins:?}: a new one leads");

    sleep(LOOKS).await;
    for (_, server, parts) in stage.cluster.alive() {
        let failed = parts.core.node().status().failed;
        assert_eq!(failed, None, "{begins:?}: {}", server.name);
    }
    let all_read = if old.is_empty() { LEVEL } else { OLD };
    check_level(&stage, all_read, "as all have come");
    for index in old {
        stage.cluster.crash(*index);
        stage.cluster.upgrade(*index);
        stage.cluster.start_at_last(*index).await;
    }
    rises(&stage).await;
    catches_up(&stage, LAST).await;
}

/// The level in the first event, as the leader has it.
fn begun_at(stage: &Stage) -> Option<u32> {
    let first = stage.core(stage.leader()?).store().event_at(1).unwrap()?;
    match first.envelope.happened {
        Happened::Founded { level, .. } => Some(level),
        ref other => panic!("the first event: {other:?}"),
    }
}

fn check_upgrade_said(said: &str) {
    let upgrade = format!(
        "the log is at level {LEVEL}, this program knows level {OLD}: upgrade this server; its data is untouched"
    );
    assert!(said.contains(&upgrade), "{said}");
}

#[test]
fn a_running_server_stops_before_it_applies_a_level_too_high() {
    play(async {
        let (mut stage, old) = mixed().await;
        let raised = raise(&stage).await;
        check_upgrade_said(&stopped(&stage, old).await);
        let view = stage.core(old).view();
        assert!(
            view.level == OLD && view.revision < raised,
            "{} at {}",
            view.level,
            view.revision
        );
        // The others go on, and so does this one when it is started again: it says the same.
        done(stage.create(stage.leader().unwrap(), "meanwhile").await);
        stage.cluster.crash(old);
        stage.cluster.start_at_last(old).await;
        check_upgrade_said(&stopped(&stage, old).await);

        stage.cluster.crash(old);
        stage.cluster.upgrade(old);
        stage.cluster.start_at_last(old).await;
        catches_up(&stage, old).await;
    });
}

/// It was away for longer than the log reaches back, so that it meets the level in a snapshot.
#[test]
fn a_snapshot_of_a_level_too_high_is_not_taken() {
    play(async {
        let (mut stage, old) = mixed().await;
        let has = stage.core(old).node().status().applied;
        let before = stage.core(old).view();
        stage.cluster.crash(old);
        raise(&stage).await;
        let leader = stage.leader().unwrap();
        for number in 0..100 {
            let map = json!({
                "metadata": {"name": format!("map-{number}")},
                "data": {"text": "4 KiB".repeat(820)},
            });
            done(stage.ask(leader, Method::POST, MAPS, Some(&map)).await);
        }
        stage
            .until("the log to be cut off behind it", 60, async || {
                (stage.core(leader).node().status().purged > has).then_some(())
            })
            .await;
        stage.cluster.start_at_last(old).await;
        check_upgrade_said(&stopped(&stage, old).await);
        let view = stage.core(old).view();
        assert_eq!(view.level, OLD);
        assert!(view.revision >= before.revision);
        assert_eq!(stage.core(old).snapshots_installed(), 0);
        done(stage.create(leader, "meanwhile").await);

        stage.cluster.crash(old);
        stage.cluster.upgrade(old);
        stage.cluster.start_at_last(old).await;
        catches_up(&stage, old).await;
        assert_eq!(stage.core(old).snapshots_installed(), 1);
    });
}
