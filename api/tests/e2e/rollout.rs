//! The loop end to end with real containers: deploy, reach, roll, scale, undo, and lose the leader in the middle of a second rollout.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::cluster::{Cluster, Options, said_by};
use crate::writes::Writes;
use crate::{image, wait};

/// For a rollout of three pods on a busy machine.
const ROLLOUT_S: u64 = 180;

#[test]
fn deploy_roll_scale_undo_and_lose_the_leader() {
    let mut cluster = Cluster::prepare(Options {
        agents: 1,
        simulated_nodes: 0,
        flags: &[],
    });
    image::provide(&cluster, "v1");
    image::provide(&cluster, "v2");
    cluster.up();

    // Deploy, and reach each pod by its own address.
    cluster.apply(&image::deployment(
        3,
        "v1",
        "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}",
    ));
    rolled_out(&cluster);
    check_versions(&cluster, 3, "v1");

    // To a new version: three wanted, one may be unavailable and one too many.
    let before = revision(&cluster);
    cluster.kubectl(&["set", "image", "deployment/web", "web=reckon.test/web:v2"]);
    rolled_out(&cluster);
    check_versions(&cluster, 3, "v2");
    check_bounds(&cluster, before, 2, 4);

    // To ten and back, and back to the first version.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=10"]);
    rolled_out(&cluster);
    check_versions(&cluster, 10, "v2");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    check_versions(&cluster, 3, "v2");
    let before = revision(&cluster);
    cluster.kubectl(&["rollout", "undo", "deployment/web"]);
    rolled_out(&cluster);
    check_versions(&cluster, 3, "v1");
    check_bounds(&cluster, before, 2, 4);

    lose_the_leader_in_a_rollout(&cluster);
    cluster.stop();
}

fn lose_the_leader_in_a_rollout(cluster: &Cluster) {
    let before = revision(cluster);
    let writes = Writes::start(cluster, "rollout");
    std::thread::sleep(Duration::from_secs(1));
    let leader = cluster.leader();
    let killed = cluster.pid(&leader).unwrap();
    cluster.kubectl(&["set", "image", "deployment/web", "web=reckon.test/web:v2"]);
    let api = cluster.api(any_server(cluster));
    wait::until("the rollout to be in its middle", 30, || {
        let status = api
            .get("/apis/apps/v1/namespaces/default/deployments/web")
            .body["status"]
            .clone();
        if matches!(status["updatedReplicas"].as_u64(), Some(1..=2)) {
            Ok(())
        } else {
            Err(status)
        }
    });
    let at = Instant::now();
    cluster.kill_9(&[&leader]);
    rolled_out(cluster);
    check_versions(cluster, 3, "v2");
    println!(
        "the second rollout was complete {:.1} s after the leader was killed",
        at.elapsed().as_secs_f32()
    );
    let acknowledged = writes.finish();
    println!(
        "longest gap in accepted writes across the loss of the leader: {:.2} s ({} writes)",
        acknowledged.longest_gap.as_secs_f32(),
        acknowledged.count
    );

    // The killed server is back, knows everything, and agrees.
    wait::until(
        "the killed server to be started again",
        60,
        || match cluster.pid(&leader) {
            Some(pid) if pid != killed => Ok(()),
            other => Err(other),
        },
    );
    let status = cluster.wait_until_level();
    assert_ne!(status["leader"], Value::Null);
    acknowledged.check_present(cluster);
    check_bounds(cluster, before, 2, 4);
}

fn rolled_out(cluster: &Cluster) {
    let limit = format!("--timeout={ROLLOUT_S}s");
    let mut contexts = ["server-1", "server-2", "server-3"].iter().cycle();
    // A server that is killed cuts the watch of a kubectl that was talking to it: as a user would, ask another.
    wait::until("the rollout to be complete", ROLLOUT_S, || {
        let context = contexts.next().unwrap();
        let output = cluster.kubectl_with(
            &[
                "--context",
                context,
                "rollout",
                "status",
                "deployment/web",
                &limit,
            ],
            "",
        );
        if output.status.success() {
            Ok(())
        } else {
            Err(said_by(&output))
        }
    });
}

/// As many pods, each of which answers over HTTP with this version, and no others.
fn check_versions(cluster: &Cluster, count: usize, version: &str) {
    wait::until(
        &format!("{count} pods that answer {version}"),
        ROLLOUT_S,
        || {
            let pods = cluster
                .api(any_server(cluster))
                .get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb");
            let pods: Vec<Value> = pods.body["items"].as_array().cloned().unwrap_or_default();
            let answers: Vec<_> = pods
                .iter()
                .map(|pod| image::version_at(pod["status"]["podIP"].as_str().unwrap_or("none")))
                .collect();
            if answers.len() == count
                && answers
                    .iter()
                    .all(|answer| answer.as_deref() == Ok(version))
            {
                Ok(())
            } else {
                Err(answers)
            }
        },
    );
}

/// In every state of the history since that revision, at least `least` pods were available and at most `most` were there.
fn check_bounds(cluster: &Cluster, since: u64, least: usize, most: usize) {
    let api = cluster.api(any_server(cluster));
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb";
    let list = api.get(&format!("/at/{since}{pods}"));
    assert_eq!(list.code, 200, "{list:?}");
    let mut state: BTreeMap<String, Value> = Default::default();
    for pod in list.body["items"].as_array().unwrap() {
        state.insert(name(pod), pod.clone());
    }
    // A watch from a revision of the past tells every change since, one by one.
    let watch = format!("{pods}&watch=true&timeoutSeconds=2&resourceVersion={since}");
    let events = api
        .send(Method::GET, &watch, "application/json", Vec::new(), 60)
        .unwrap();
    let events = events
        .body
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![events.body.clone()]);
    assert!(
        events.len() > 6,
        "a rollout of three pods is more than {} changes",
        events.len()
    );
    for event in events {
        let pod = &event["object"];
        match event["type"].as_str().unwrap() {
            "DELETED" => drop(state.remove(&name(pod))),
            "ADDED" | "MODIFIED" => drop(state.insert(name(pod), pod.clone())),
            other => panic!("a watch told {other}: {event}"),
        }
        let living = || {
            state
                .values()
                .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        };
        let available = living().filter(|pod| is_ready(pod)).count();
        let revision = &pod["metadata"]["resourceVersion"];
        assert!(
            available >= least,
            "at revision {revision} only {available} pods were available"
        );
        assert!(
            living().count() <= most,
            "at revision {revision} there were {} pods",
            living().count()
        );
    }
    // The watch told all of it: it ended in what is there now.
    let now = api.get(pods);
    let now: Vec<String> = now.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    assert_eq!(state.into_keys().collect::<Vec<_>>(), now);
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_string()
}

/// The cluster's latest.
fn revision(cluster: &Cluster) -> u64 {
    let status = cluster.status();
    status["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|member| member["revision"].as_u64())
        .max()
        .unwrap()
}

/// The number of a server that answers.
fn any_server(cluster: &Cluster) -> u16 {
    wait::until("a server that answers", 60, || {
        let status = cluster.status();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let answering = members
            .iter()
            .find(|member| member["error"].is_null() && !member["leader"].is_null());
        let number = answering.and_then(|member| {
            member["name"]
                .as_str()?
                .strip_prefix("server-")?
                .parse()
                .ok()
        });
        number.ok_or(status)
    })
}
