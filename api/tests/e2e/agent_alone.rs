//! Agents come and go, and their pods stay: one that is stopped, one that is run by hand, and those of an `up` that was killed. The `up`
//! that stops for good clears away what any of them left.

use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Options, reckon};
use crate::pods::{Asking, running};
use crate::{image, machine, wait};

#[test]
fn pods_outlive_their_agents() {
    let mut cluster = Cluster::prepare(Options {
        agents: 1,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    image::provide(&cluster, "v1");
    let bare = machine::seen(&cluster);
    cluster.up();
    cluster.apply(&image::deployment(2, "v1", ""));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let before = running(&cluster);
    let asking = Asking::start(&before);

    // Stopped, which is not what `up` does to it.
    cluster.signal(cluster.pid("agent-1").unwrap(), Signal::SIGTERM);
    wait::until("the pid file to go", 30, || {
        cluster.pid("agent-1").map_or(Ok(()), Err)
    });
    std::thread::sleep(Duration::from_secs(1));

    // By hand it takes up what runs, and leaves it when it is stopped.
    for (replicas, signal) in [("3", Signal::SIGINT), ("4", Signal::SIGTERM)] {
        let mut agent = agent_by_hand(&cluster);
        cluster.kubectl(&["scale", "deployment/web", "--replicas", replicas]);
        let status = ["rollout", "status", "deployment/web", "--timeout=60s"];
        cluster.kubectl(&status);
        let now = running(&cluster);
        assert!(
            before.iter().all(|pod| now.contains(pod)),
            "{before:?} then {now:?}"
        );
        assert_eq!(now.len().to_string(), replicas);
        cluster.signal(agent.id() as i32, signal);
        let ended = wait::until("the agent to end", 30, || {
            agent.try_wait().unwrap().ok_or("it runs")
        });
        assert!(ended.success(), "{ended}");
    }

    // An `up` that is killed cannot stop anything; the next one carries on with what runs.
    cluster.kill_up();
    cluster.up();
    cluster.kubectl(&["scale", "deployment/web", "--replicas=5"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let now = running(&cluster);
    assert!(
        before.iter().all(|pod| now.contains(pod)),
        "{before:?} then {now:?}"
    );
    println!(
        "the pods answered {} requests meanwhile",
        asking.finish_without_a_failure()
    );

    // Nobody runs them now, and the stop ends them all the same.
    cluster.signal(cluster.pid("agent-1").unwrap(), Signal::SIGTERM);
    wait::until("the pid file to go", 30, || {
        cluster.pid("agent-1").map_or(Ok(()), Err)
    });
    cluster.stop();
    let left = machine::left(&cluster, &bare);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn agent_by_hand(cluster: &Cluster) -> Child {
    let servers: Vec<String> = (0..3)
        .map(|n| format!("https://127.0.0.1:{}", cluster.port + n))
        .collect();
    let log = std::fs::File::create(cluster.path("by-hand.log")).unwrap();
    let mut command: Command = cluster.privileged(reckon());
    command
        .args(["agent", "--name", "agent-1", "--server", &servers.join(",")])
        .arg("--data-dir")
        .arg(cluster.path("agent-1"))
        .arg("--images")
        .arg(cluster.path("images"))
        .arg("--ca")
        .arg(cluster.path("pki/ca.crt"))
        .arg("--cert")
        .arg(cluster.path("pki/agent-1.crt"))
        .arg("--key")
        .arg(cluster.path("pki/agent-1.key"))
        .stderr(log);
    command.spawn().unwrap()
}
