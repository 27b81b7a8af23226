//! All servers killed at once under a load of writes, then the agent: what was acknowledged is there, and the pods never noticed.

use std::time::Duration;

use crate::cluster::{Cluster, Options};
use crate::pods::{Asking, running};
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
    let asking = Asking::start(&before);

    let first = Writes::start(&cluster, "first");
    std::thread::sleep(Duration::from_secs(3));
    cluster.kill_9(&["server-1", "server-2", "server-3"]);
    let status = cluster.wait_until_back();
    // The writer goes on with the same name until it is told: what is new is accepted too.
    std::thread::sleep(Duration::from_secs(2));
    let acknowledged = first.finish();
    println!(
        "all three servers killed: {} writes acknowledged, longest gap {:.2} s, leader now {}",
        acknowledged.count,
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

    println!(
        "the pods answered {} requests meanwhile",
        asking.finish_without_a_failure()
    );
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}
