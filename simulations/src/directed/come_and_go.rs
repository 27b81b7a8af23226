//! Servers come, go, lead in turn and are upgraded one by one while clients write all the time: nothing is lost, and nobody is kept
//! waiting for longer than an election takes. Virtual time has no busy machine in it, so the bounds are the design's own.

use super::{MAPS, Stage, cluster, done, play};
use crate::cluster::{Fronts, SimCluster};
use crate::sides::SimNet;
use crate::workload::{Answer, ask};
use eventstore::LEVEL;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use server::config::Joined;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const MEMBERS: &str = "/reckon/v1/members";
const WRITERS: usize = 3;
/// Between two writes of one client; and before another server is asked.
const PAUSE: Duration = Duration::from_millis(60);
const RETRY: Duration = Duration::from_millis(10);

/// A leader that dies is missed after 350 ms of loyalty and 200 to 350 ms more, and then elected within some messages; and a client
/// has to find that out.
const KILLED_GAP: Duration = Duration::from_millis(350 + 350 + 150);
/// Where nobody dies, leadership is handed over and not missed: some messages, and the pause between two writes.
const CLEAN_GAP: Duration = Duration::from_millis(100);

/// Clients that write, each first to another server, and to the next one where that does not answer.
struct Writers {
    tasks: Vec<JoinHandle<()>>,
    /// Names of what was acknowledged, and when.
    told: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Writers {
    fn start(cluster: &SimCluster) -> Self {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let writer = |number| {
            let (fronts, net) = (cluster.fronts.clone(), cluster.net.clone());
            tokio::spawn(write(number, fronts, net, told.clone()))
        };
        Self {
            tasks: (0..WRITERS).map(writer).collect(),
            told,
        }
    }

    /// Something was acknowledged since, and no two acknowledgements are further apart.
    fn check_gap(&self, since: Instant, most: Duration, what: &str) {
        let told = self.told.lock().unwrap();
        let times = told.iter().map(|(_, at)| *at).filter(|at| *at >= since);
        let times: Vec<_> = [since]
            .into_iter()
            .chain(times)
            .chain([Instant::now()])
            .collect();
        let gap = times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap();
        println!(
            "{what}: {} acknowledged, the longest gap {gap:?}",
            times.len() - 2
        );
        assert!(times.len() > 2, "{what}: nothing was acknowledged");
        assert!(gap <= most, "{what}: {gap:?} without an acknowledgement");
    }

    fn end(self) -> Vec<String> {
        self.tasks.iter().for_each(JoinHandle::abort);
        let told = self.told.lock().unwrap();
        told.iter().map(|(name, _)| name.clone()).collect()
    }
}

async fn write(
    number: usize,
    fronts: Fronts,
    net: SimNet,
    told: Arc<Mutex<Vec<(String, Instant)>>>,
) {
    let client = format!("client-{number}");
    let mut server = number;
    for count in 0.. {
        let name = format!("{client}-{count}");
        let map = json!({"metadata": {"name": name}});
        loop {
            let members = fronts.members();
            let asked = &members[server % members.len()];
            match ask(
                &fronts,
                &net,
                &client,
                asked,
                Method::POST,
                MAPS,
                Some(&map),
            )
            .await
            {
                // It was done before, and the answer lost.
                Answer::Done(_) | Answer::Refused(StatusCode::CONFLICT, _) => break,
                Answer::Refused(..) | Answer::Unknown => server += 1,
            }
            sleep(RETRY).await;
        }
        told.lock().unwrap().push((name, Instant::now()));
        sleep(PAUSE).await;
    }
}

/// All that was acknowledged is there on each server.
async fn check_present(stage: &Stage, names: &[String]) {
    for (index, server, _) in stage.cluster.alive() {
        let list = done(stage.ask(index, Method::GET, MAPS, None).await);
        let items = list["items"].as_array().unwrap();
        let present = |name: &String| items.iter().any(|item| item["metadata"]["name"] == **name);
        let lost: Vec<_> = names.iter().filter(|name| !present(name)).collect();
        assert!(lost.is_empty(), "{} lost {lost:?}", server.name);
    }
}

/// An index of a server that runs.
fn any(stage: &Stage) -> usize {
    stage
        .leader()
        .unwrap_or_else(|| stage.cluster.alive().next().unwrap().0)
}

async fn role(stage: &Stage, name: &str) -> Option<Value> {
    match stage.ask(any(stage), Method::GET, MEMBERS, None).await {
        Answer::Done(list) => {
            let members = list["members"].as_array()?.iter();
            members
                .filter(|member| member["name"] == name)
                .map(|member| member["role"].clone())
                .next_back()
        }
        Answer::Refused(..) | Answer::Unknown => None,
    }
}

/// Adds a server, starts it, and waits until it votes.
async fn add(stage: &mut Stage, name: &str) -> u64 {
    let asked = json!({"name": name, "address": format!("{name}:6443"), "promote": true});
    done(
        stage
            .ask(any(stage), Method::POST, MEMBERS, Some(&asked))
            .await,
    );
    let (fronts, net) = (&stage.cluster.fronts, &stage.cluster.net);
    let door = stage.name(any(stage));
    let path = "/reckon/v1/join";
    let place = done(
        ask(
            fronts,
            net,
            name,
            &door,
            Method::POST,
            path,
            Some(&json!({})),
        )
        .await,
    );
    let joined = Joined {
        id: place["id"].as_u64().unwrap(),
        cluster: place["cluster"].as_str().unwrap().to_owned(),
    };
    let id = joined.id;
    let index = stage.cluster.engage(name.to_owned(), joined);
    stage.cluster.start_at_last(index).await;
    stage
        .until("it to vote", 60, async || {
            let role = role(stage, name).await?;
            (role == "voter" || role == "leader").then_some(())
        })
        .await;
    id
}

/// Removes a server, dead or alive, and ends it.
async fn remove(stage: &mut Stage, name: &str) {
    let path = format!("{MEMBERS}/{name}/remove");
    stage
        .until("it to be removed", 60, async || {
            let answer = stage
                .ask(any(stage), Method::POST, &path, Some(&json!({})))
                .await;
            let gone = matches!(
                answer,
                Answer::Done(_) | Answer::Refused(StatusCode::NOT_FOUND, _)
            );
            gone.then_some(())
        })
        .await;
    let mut members = stage.cluster.members();
    let index = members.find(|(_, server)| server.name == name).unwrap().0;
    drop(members);
    stage.cluster.dismiss(index);
}

#[test]
fn growing_and_shrinking_stops_nothing() {
    play(async {
        let mut stage = Stage::of(cluster(1), 0).await;
        let writers = Writers::start(&stage.cluster);
        for number in 2..=5 {
            let since = Instant::now();
            add(&mut stage, &format!("server-{number}")).await;
            writers.check_gap(since, CLEAN_GAP, &format!("growing to {number}"));
        }
        // One dies for good, and another takes its place: one that leads, and one that does not.
        let mut ids = 6..;
        for leads in [false, true] {
            let since = Instant::now();
            let leader = stage.leader().unwrap();
            let members: Vec<_> = stage.cluster.members().map(|(index, _)| index).collect();
            let dies = members
                .into_iter()
                .find(|index| (*index == leader) == leads);
            let dies = dies.unwrap();
            let name = stage.name(dies);
            stage.cluster.crash(dies);
            stage.until("a leader", 10, async || stage.leader()).await;
            remove(&mut stage, &name).await;
            let id = add(&mut stage, &name).await;
            assert_eq!(Some(id), ids.next(), "an id of its own");
            let most = if leads { KILLED_GAP } else { CLEAN_GAP };
            writers.check_gap(
                since,
                most,
                &format!("replacing {name}, which led: {leads}"),
            );
        }
        // Leadership is moved on request.
        for _ in 0..3 {
            let since = Instant::now();
            let path = format!("{MEMBERS}/transfer-leader");
            done(
                stage
                    .ask(any(&stage), Method::POST, &path, Some(&json!({})))
                    .await,
            );
            sleep(Duration::from_secs(1)).await;
            writers.check_gap(since, CLEAN_GAP, "another leads");
        }
        // Down to one; the leader goes first, each time.
        for left in (1..=4).rev() {
            let since = Instant::now();
            let name = stage.name(stage.leader().unwrap());
            remove(&mut stage, &name).await;
            sleep(Duration::from_secs(1)).await;
            writers.check_gap(since, CLEAN_GAP, &format!("shrinking to {left}"));
        }
        let names = writers.end();
        check_present(&stage, &names).await;
    });
}

/// Each server ends, as it does when it is told to, or dies, and comes back as the next release.
fn check_rolling(killed: bool) {
    play(async {
        let mut servers = cluster(3);
        servers.begin_old();
        let mut stage = Stage::of(servers, 0).await;
        let writers = Writers::start(&stage.cluster);
        sleep(Duration::from_secs(1)).await;
        for index in 0..3 {
            let since = Instant::now();
            let (name, led) = (stage.name(index), stage.leader() == Some(index));
            if !killed {
                stage.core(index).clone().stop().await.unwrap();
            }
            stage.cluster.crash(index);
            sleep(Duration::from_secs(2)).await;
            stage.cluster.upgrade(index);
            stage.cluster.start_at_last(index).await;
            stage
                .until("it to follow", 20, async || {
                    let leader = stage.core(stage.leader()?).view();
                    (stage.core(index).view().revision + 5 >= leader.revision).then_some(())
                })
                .await;
            // A look at the levels is in it.
            sleep(Duration::from_secs(6)).await;
            let most = if killed && led { KILLED_GAP } else { CLEAN_GAP };
            writers.check_gap(since, most, &format!("upgrading {name}, which led: {led}"));
        }
        let since = Instant::now();
        stage
            .until("the level to rise", 20, async || {
                let mut alive = stage.cluster.alive();
                alive
                    .all(|(_, _, parts)| parts.core.view().level == LEVEL)
                    .then_some(())
            })
            .await;
        sleep(Duration::from_secs(1)).await;
        writers.check_gap(since, CLEAN_GAP, "at the next level");
        let names = writers.end();
        check_present(&stage, &names).await;
    });
}

#[test]
fn a_rolling_upgrade_stops_nothing() {
    check_rolling(false);
}

#[test]
fn a_rolling_upgrade_by_killing_waits_for_an_election_at_most() {
    check_rolling(true);
}
