//! Nodes whose agents are gone: not ready after the grace, tainted, and their pods replaced after what they tolerate.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::wait;

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "reckon.test/web:v1"}]}
"#;

#[test]
fn pods_of_lost_nodes_are_replaced() {
    let flags = [
        "--no-restart",
        "--node-grace",
        "3s",
        "--default-not-ready-toleration-seconds",
        "3",
    ];
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &flags,
    });
    cluster.apply(MANIFEST);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let before = names(&pods(&cluster, |_| true));
    assert_eq!(before.len(), 2);

    cluster.kill_9(&["simulated-nodes"]);
    wait::until("the nodes to be not ready, and tainted", 60, || {
        let nodes = cluster.kubectl_json(&["get", "nodes"]);
        if nodes["items"].as_array().unwrap().iter().all(is_lost) {
            Ok(())
        } else {
            Err(nodes)
        }
    });
    // They wait for a node, for there is none; those that they replace wait for their agents to say that they are gone.
    wait::until("the pods to be replaced", 60, || {
        let living = pods(&cluster, |pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
        });
        let leaving = names(&pods(&cluster, |pod| {
            !pod["metadata"]["deletionTimestamp"].is_null()
        }));
        let pending = living
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Pending" && pod["spec"]["nodeName"].is_null());
        if pending.count() == 2 && living.len() == 2 && leaving == before {
            Ok(())
        } else {
            Err(living)
        }
    });
    cluster.stop();
}

fn is_lost(node: &Value) -> bool {
    let ready = node["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .unwrap();
    let taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let tainted = |effect: &str| {
        taints.iter().any(|taint| {
            taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == effect
        })
    };
    ready["status"] == "Unknown" && tainted("NoSchedule") && tainted("NoExecute")
}

fn pods(cluster: &Cluster, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let list = cluster.kubectl_json(&["get", "pods"]);
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| wanted(pod))
        .cloned()
        .collect()
}

fn names(pods: &[Value]) -> BTreeSet<String> {
    pods.iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}
