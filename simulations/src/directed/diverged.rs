//! A server whose apply goes wrong finds out that its history is not the others', and serves nobody any more.

use super::{MAPS, Stage, done, play, refused};
use crate::workload::Answer;
use eventstore::{Act, Entry, Position, Time};
use http::{Method, StatusCode};
use server::Tamper;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Ten seconds between two comparisons, and what was asked for is as old again.
const FENCED_WITHIN_S: u64 = 25;

/// From when it is told to, the apply of one server stamps users' changes a little later than it should.
fn wrong_when(told: &Arc<AtomicBool>) -> Tamper {
    let told = told.clone();
    Arc::new(move |_: Position, entry: &mut Entry| {
        let changes = |proposal: &eventstore::Proposal| matches!(proposal.act, Act::Objects(_));
        if told.load(Ordering::Relaxed) && entry.proposals.iter().any(changes) {
            entry.clock = Time::from_ms(entry.clock.ms() + 1);
        }
    })
}

/// `leads`: whether the one that goes wrong leads.
fn check(leads: bool) {
    play(async {
        let told = Arc::new(AtomicBool::new(false));
        let mut stage = Stage::set(2, Some((2, wrong_when(&told)))).await;
        let to = if leads { 2 } else { 0 };
        let id = stage.status(to).id;
        if stage.leader() != Some(to) {
            let leader = stage.core(stage.leader().unwrap());
            leader.node().transfer_leadership(Some(id)).await.unwrap();
        }
        sleep(Duration::from_secs(30)).await;
        for server in 0..3 {
            assert_eq!(stage.core(server).fenced(), None, "nothing is wrong yet");
        }

        told.store(true, Ordering::Relaxed);
        done(stage.create(0, "the-first-that-differs").await);
        let wrong_since = Instant::now();
        // Ten minutes long, if nothing ends it.
        let path = format!("{MAPS}?watch=1&timeoutSeconds=600");
        let watching = stage.ask(2, Method::GET, &path, None);
        let fenced = stage.until("it to be fenced", FENCED_WITHIN_S, async || {
            stage.core(2).fenced()
        });
        let (watched, why) = tokio::join!(watching, fenced);
        assert!(matches!(watched, Answer::Done(_)), "the watch went on");
        println!(
            "fenced after {:.1} s: {why}",
            wrong_since.elapsed().as_secs_f32()
        );
        for part in [
            "server-3 has diverged from a majority",
            " on server-1 and server-2. ",
            "reckon member remove server-3",
        ] {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
        // It gives up leading, and the others take writes.
        stage
            .until("another to lead", 10, async || {
                stage.leader().filter(|leader| *leader != 2)
            })
            .await;
        for server in [0, 1] {
            done(stage.create(server, &format!("after-{server}")).await);
            assert_eq!(stage.core(server).fenced(), None);
        }
        // Neither reads nor writes, of the past neither, and the other servers' word for it is its own.
        for (method, path) in [
            (Method::GET, MAPS.to_owned()),
            (Method::GET, format!("{MAPS}?resourceVersion=0")),
            (Method::GET, format!("/at/1{MAPS}")),
            (Method::GET, "/reckon/v1/events".to_owned()),
            (Method::DELETE, format!("{MAPS}/after-0")),
        ] {
            let (code, message) = refused(stage.ask(2, method, &path, None).await);
            assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{path}: {message}");
            assert_eq!(message, &*why, "{path}");
        }
        let (code, _) = refused(stage.create(2, "never").await);
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        let status = done(stage.ask(2, Method::GET, "/reckon/v1/status", None).await);
        assert_eq!(
            (&status["fenced"], &status["fault"]),
            (&true.into(), &(&*why).into())
        );
        // Its agents went to others.
        stage
            .until("its sessions to be elsewhere", 30, async || {
                let view = stage.core(0).view();
                let elsewhere = |(_, session): (_, &eventstore::Session)| {
                    session.lost.is_none() && &*session.server != "server-3"
                };
                (view.sessions().count() == 2 && view.sessions().all(elsewhere)).then_some(())
            })
            .await;

        // It lasts, and it does not lead even where nobody else could.
        stage.cluster.crash(2);
        stage.cluster.start(2).await.unwrap();
        assert_eq!(stage.core(2).fenced().as_deref(), Some(&*why));
        let leader = stage.leader().unwrap();
        stage.cluster.crash(leader);
        sleep(Duration::from_secs(20)).await;
        assert_ne!(stage.leader(), Some(2), "{:?}", stage.status(2));
        // Its vote and its log count all the same: with it there is a majority.
        let other = 1 - leader;
        stage
            .until("the other to lead", 10, async || {
                (stage.leader() == Some(other)).then_some(())
            })
            .await;
        match stage.create(other, "with-its-vote").await {
            Answer::Done(_) => {}
            answer => panic!("{answer}"),
        }
    });
}

#[test]
fn a_follower_that_differs_fences_itself() {
    check(false);
}

#[test]
fn a_leader_that_differs_fences_itself_and_another_leads() {
    check(true);
}

/// One against one, the third being dead: it is said, and nobody is fenced.
#[test]
fn without_a_majority_it_is_said_and_nothing_is_done() {
    play(async {
        let told = Arc::new(AtomicBool::new(false));
        let mut stage = Stage::set(0, Some((2, wrong_when(&told)))).await;
        stage.cluster.crash(1);
        stage
            .until("a leader of the two", 20, async || stage.leader())
            .await;
        told.store(true, Ordering::Relaxed);
        done(stage.create(0, "differs").await);
        for server in [0, 2] {
            let warning = stage
                .until("it to be said", FENCED_WITHIN_S, async || {
                    stage.status(server).warnings.first().cloned()
                })
                .await;
            assert!(
                warning.contains("no majority says which is right"),
                "{warning}"
            );
            assert_eq!(stage.core(server).fenced(), None);
            done(stage.create(server, &format!("still-{server}")).await);
        }
        // The third comes back, and it is clear.
        stage.cluster.start(1).await.unwrap();
        stage
            .until("the wrong one to be fenced", FENCED_WITHIN_S, async || {
                stage.core(2).fenced()
            })
            .await;
        assert_eq!(stage.core(0).fenced(), None);
    });
}
