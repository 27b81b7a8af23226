//! All servers killed at once under a load of writes, then the agent: what was acknowledged is there, and the pods never noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::writes::Writes;
use crate::{image, wait};

#[test]
fn all_servers_at_once_and_then_the_agent() {
    let mut cluster = Cluster::prepare(Options {
        agents: 1,
        simulated_nodes: 0,
        flags: &[],
    });
    image::provide(&cluster, "v1");
    cluster.up();
    cluster.apply(&image::deployment(3, "v1", ""));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let before = running(&cluster);
    assert_eq!(before.len(), 3, "{before:?}");
    let asking = Asking::start(before.iter().map(|pod| pod.address.clone()).collect());

    let first = Writes::start(&cluster, "first");
    std::thread::sleep(Duration::from_secs(3));
    cluster.kill_9(&["server-1", "server-2", "server-3"]);
    let status = wait::until("the servers to be back", 90, || {
        let status = cluster.status();
        let back = status["members"]
            .as_array()
            .is_some_and(|members| members.iter().all(|member| member["error"].is_null()));
        if back && !status["leader"].is_null() {
            Ok(status)
        } else {
            Err(status)
        }
    });
    // The writer goes on with the same name until it is told: what is new is accepted too.
    std::thread::sleep(Duration::from_secs(2));
    let acknowledged = first.finish();
    println!(
        "all three servers killed: {} writes acknowledged, longest gap {:.2} s, leader now {}",
        acknowledged.names.len(),
        acknowledged.longest_gap.as_secs_f32(),
        status["leader"]
    );
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);

    // The same containers, never started again, which answered all the while.
    wait::until("the node to be Ready again", 60, || {
        let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]);
        if nodes.contains(" Ready ") {
            Ok(())
        } else {
            Err(nodes)
        }
    });
    assert_eq!(running(&cluster), before);

    // A new agent takes up what runs.
    let old = cluster.pid("agent-1").unwrap();
    cluster.kill_9(&["agent-1"]);
    wait::until("the agent to be started again", 30, || {
        match cluster.pid("agent-1") {
            Some(pid) if pid != old => Ok(()),
            other => Err(other),
        }
    });
    // Its first reports have come when a pod that is made now runs.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let after = running(&cluster);
    assert!(
        after.len() == 4 && before.iter().all(|pod| after.contains(pod)),
        "{before:?} then {after:?}"
    );

    let (answered, failed) = asking.finish();
    println!("the pods answered {answered} requests meanwhile");
    assert!(
        answered > 0 && failed.is_empty(),
        "{answered} requests were answered, and these were not: {failed:?}"
    );
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}

#[derive(Debug, PartialEq)]
struct Pod {
    uid: String,
    address: String,
    container: String,
    started_at: String,
    restarts: u64,
}

fn running(cluster: &Cluster) -> Vec<Pod> {
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
struct Asking {
    stop: Arc<AtomicBool>,
    asker: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    fn start(addresses: Vec<String>) -> Self {
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

    fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.asker.join().unwrap()
    }
}
