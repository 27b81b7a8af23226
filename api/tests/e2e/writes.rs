//! A load of writes that outlives servers: ConfigMaps, each created under a name of its own, with a count of what was acknowledged.
//! Several write at once, each first to another server, so that some writes are always under way.
//!
//! A server that does not answer is passed over. A write whose answer was lost is sent again under the same name, so that "it exists
//! already" is an acknowledgement too, and the same one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::api::Api;
use crate::cluster::Cluster;

const WRITERS: u16 = 6;
/// No single answer is waited for longer: the next server may be up.
const ANSWER_S: u64 = 5;

pub struct Writes {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<(String, Instant)>>>,
    started: Instant,
}

pub struct Acknowledged {
    pub names: Vec<String>,
    pub longest_gap: Duration,
}

impl Writes {
    pub fn start(cluster: &Cluster, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let writer = |number: u16| {
            let (stopped, kubeconfig, port, prefix) = (
                stop.clone(),
                cluster.kubeconfig(),
                cluster.port,
                format!("{prefix}-{number}"),
            );
            std::thread::spawn(move || {
                write(&stopped, kubeconfig, port, &prefix, usize::from(number % 3))
            })
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self {
            stop,
            writers,
            started,
        }
    }

    pub fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self.writers.into_iter();
        let mut acknowledged: Vec<_> = writers.flat_map(|writer| writer.join().unwrap()).collect();
        acknowledged.sort_by_key(|(_, at)| *at);
        assert!(!acknowledged.is_empty(), "no write was acknowledged");
        let mut last = self.started;
        let mut longest_gap = Duration::ZERO;
        for (_, at) in &acknowledged {
            longest_gap = longest_gap.max(at.duration_since(last));
            last = *at;
        }
        Acknowledged {
            names: acknowledged.into_iter().map(|(name, _)| name).collect(),
            longest_gap,
        }
    }
}

impl Acknowledged {
    /// Every one of them is there, on each of the servers.
    pub fn check_present(&self, cluster: &Cluster) {
        for server in 1..=3 {
            let answer = cluster
                .api(server)
                .get("/api/v1/namespaces/default/configmaps");
            assert_eq!(answer.code, 200, "{answer:?}");
            let present: Vec<&str> = answer.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|item| item["data"]["n"].is_string())
                .map(|item| item["metadata"]["name"].as_str().unwrap())
                .collect();
            let lost: Vec<&String> = self
                .names
                .iter()
                .filter(|name| !present.contains(&name.as_str()))
                .collect();
            assert!(
                lost.is_empty(),
                "server-{server} lost {} of {} acknowledged writes: {lost:?}",
                lost.len(),
                self.names.len()
            );
        }
    }
}

fn write(
    stop: &AtomicBool,
    kubeconfig: PathBuf,
    port: u16,
    prefix: &str,
    mut server: usize,
) -> Vec<(String, Instant)> {
    let servers: Vec<Api> = (0..3)
        .map(|n| Api::new(&kubeconfig, &format!("https://127.0.0.1:{}", port + n)))
        .collect();
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{prefix}-{}", acknowledged.len());
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "n": acknowledged.len().to_string() } });
        let path = "/api/v1/namespaces/default/configmaps";
        match servers[server].send(
            Method::POST,
            path,
            "application/json",
            body.to_string().into_bytes(),
            ANSWER_S,
        ) {
            Ok(answer)
                if answer.code == 201
                    || (answer.code == 409 && answer.body["reason"] == "AlreadyExists") =>
            {
                acknowledged.push((name, Instant::now()));
                std::thread::sleep(Duration::from_millis(10));
            }
            // Refused, broken off, 503, 504: another server may take it.
            _ => {
                server = (server + 1) % servers.len();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    acknowledged
}
