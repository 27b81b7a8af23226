//! Scenes that are set by hand, where a drawn fault would not show the point, or not by itself: one a file.

mod broken_off;
mod clock_jumps;
mod come_and_go;
mod commits;
mod cut_off;
mod disk_full;
mod diverged;
mod forwarded;
mod found;
mod levels;
mod retention;
mod slow_disk;
mod starts;

use crate::agents;
use crate::cluster::SimCluster;
use crate::invariants::freed::Lives;
use crate::run::runtime;
use crate::workload::{ANSWER_TIMEOUT, Answer, ask};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use server::Tamper;
use server::config::HistoryRetention;
use server::core::{Core, Status};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const SEED: u64 = 1;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NODE_GRACE_S: u64 = 8;

/// Three servers, some nodes, and a client whom every server hears.
struct Stage {
    cluster: SimCluster,
    nodes: Vec<JoinHandle<()>>,
}

/// Plays a scene on a runtime of its own.
fn play<F: Future<Output = ()>>(scene: F) {
    let runtime = runtime(SEED);
    runtime.block_on(scene);
    runtime.shutdown_background();
}

/// So many servers that are not started yet.
fn cluster(servers: usize) -> SimCluster {
    SimCluster::new(SEED, servers, None, NODE_GRACE_S, Lives::default())
}

impl Stage {
    /// Started, and writable. `tamper`: what is done to the apply of the server of this index.
    async fn set(nodes: u32, tamper: Option<(usize, Tamper)>) -> Self {
        let mut cluster = cluster(3);
        if let Some((index, tamper)) = tamper {
            cluster.servers[index].tamper = Some(tamper);
        }
        Self::of(cluster, nodes).await
    }

    /// Started, and writable, with history kept for a while only.
    async fn keeping(retention: HistoryRetention) -> Self {
        let mut cluster = cluster(3);
        cluster.retention = retention;
        Self::of(cluster, 0).await
    }

    /// Of servers that are not started yet.
    async fn of(mut cluster: SimCluster, nodes: u32) -> Self {
        let started = Instant::now();
        for index in 0..cluster.servers.len() {
            cluster.start(index).await.unwrap();
        }
        let names = cluster.names();
        let start = |index| {
            let (net, fronts) = (cluster.net.clone(), cluster.fronts.clone());
            agents::start(index, SEED, names.clone(), net, fronts, started)
        };
        let nodes = (1..=nodes).map(start).collect();
        let stage = Self { cluster, nodes };
        stage
            .until("a namespace to write to", 60, async || {
                stage.leader()?;
                let path = "/api/v1/namespaces/default/serviceaccounts/default";
                let answer = stage.ask(0, Method::GET, path, None).await;
                matches!(answer, Answer::Done(_)).then_some(())
            })
            .await;
        stage
    }

    fn core(&self, index: usize) -> &Core {
        &self.cluster.servers[index].parts.as_ref().unwrap().core
    }

    fn status(&self, index: usize) -> Status {
        self.core(index).status()
    }

    fn leader(&self) -> Option<usize> {
        self.cluster.leader()
    }

    /// The servers that do not lead.
    fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        (0..3).filter(|index| Some(*index) != leader).collect()
    }

    fn name(&self, index: usize) -> String {
        self.cluster.servers[index].name.clone()
    }

    /// A server is cut off from the two others, and from nobody else.
    fn cut_off(&self, index: usize) {
        let others = (0..3).filter(|other| *other != index);
        let others: Vec<_> = others.map(|other| self.name(other)).collect();
        self.cluster.net.cut(&[self.name(index)], &others);
    }

    async fn ask(&self, server: usize, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.ask_as("client-0", server, method, path, body).await
    }

    async fn ask_as(
        &self,
        who: &str,
        server: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let (fronts, net) = (&self.cluster.fronts, &self.cluster.net);
        let name = self.name(server);
        let asked = ask(fronts, net, who, &name, method, path, body);
        timeout(ANSWER_TIMEOUT * 7, asked)
            .await
            .unwrap_or(Answer::Unknown)
    }

    /// Creates a ConfigMap through a server.
    async fn create(&self, server: usize, name: &str) -> Answer {
        let map = json!({"metadata": {"name": name}, "data": {"a": "b"}});
        self.ask(server, Method::POST, MAPS, Some(&map)).await
    }

    async fn until<T>(
        &self,
        what: &str,
        limit_s: u64,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + Duration::from_secs(limit_s);
        loop {
            if let Some(found) = look().await {
                return found;
            }
            let alive = self.cluster.alive();
            let standing: Vec<_> = alive.map(|(_, _, parts)| parts.core.status()).collect();
            assert!(
                Instant::now() < deadline,
                "{what}: not within {limit_s} s; {standing:#?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.nodes.iter().for_each(JoinHandle::abort);
    }
}

/// What was done.
#[track_caller]
fn done(answer: Answer) -> Value {
    match answer {
        Answer::Done(value) => value,
        other => panic!("{other}"),
    }
}

/// What was refused, with which code and message.
#[track_caller]
fn refused(answer: Answer) -> (StatusCode, String) {
    match answer {
        Answer::Refused(code, status) => {
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            (code, message)
        }
        other => panic!("{other}"),
    }
}
