//! The pods of `image::deployment`: which containers they are, and whether they answer all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::image;

#[derive(Debug, PartialEq)]
pub struct Pod {
    pub uid: String,
    pub address: String,
    pub container: String,
    pub started_at: String,
    pub restarts: u64,
}

/// The web server's pods, all of which must run.
pub fn running(cluster: &Cluster) -> Vec<Pod> {
    let pods = cluster.kubectl_json(&["get", "pods", "-l", "app=web"]);
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("not running: {pods}"))
            .to_string()
    };
    let pod = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        Pod {
            uid: text(&pod["metadata"]["uid"]),
            address: text(&pod["status"]["podIP"]),
            container: text(&container["containerID"]),
            started_at: text(&container["state"]["running"]["startedAt"]),
            restarts: container["restartCount"].as_u64().unwrap(),
        }
    };
    pods["items"].as_array().unwrap().iter().map(pod).collect()
}

/// Asks each pod over and over.
pub struct Asking {
    stop: Arc<AtomicBool>,
    asker: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    pub fn start(pods: &[Pod]) -> Self {
        let addresses: Vec<String> = pods.iter().map(|pod| pod.address.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let ask = move || {
            let (mut answered, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                for address in &addresses {
                    match image::version_at(address) {
                        Ok(_) => answered += 1,
                        Err(why) => failed.push(format!("{address}: {why}")),
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            (answered, failed)
        };
        Self {
            stop,
            asker: std::thread::spawn(ask),
        }
    }

    /// How many requests were answered; each must have been.
    pub fn finish_without_a_failure(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (answered, failed) = self.asker.join().unwrap();
        assert!(
            answered > 0 && failed.is_empty(),
            "{answered} requests were answered, and these were not: {failed:?}"
        );
        answered
    }
}
