//! History that is kept for a while: what is past it is refused everywhere, what is held or newer is as it was.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::wait;

const MAP: &str = "/api/v1/namespaces/default/configmaps/counted";
const KEPT: u64 = 300;
const UPDATES: u64 = 1_000;

#[test]
fn old_history_goes_and_held_history_stays() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--history-retention", "300"],
    });
    cluster.kubectl(&["create", "configmap", "counted", "--from-literal=n=0"]);
    let first = update(&cluster, 1);
    for n in 2..UPDATES / 2 {
        update(&cluster, n);
    }
    let held = cluster.reckon_json(&["hold", "audit"])["revision"]
        .as_u64()
        .unwrap();
    let then = cluster.api(1).get(&format!("/at/{held}{MAP}")).body;
    for n in UPDATES / 2..UPDATES {
        update(&cluster, n);
    }

    // The horizon goes up to what is held, and no further.
    let reached = wait::until("the horizon to reach what is held", 60, || {
        horizon(&cluster, held)
    });
    assert_eq!(reached, held);
    for server in 1..=3 {
        let api = cluster.api(server);
        let old = api.get(&format!("/at/{first}{MAP}"));
        assert_eq!(
            (old.code, &old.body["reason"]),
            (410, &json!("Expired")),
            "{old:?}"
        );
        let message = old.body["message"].as_str().unwrap();
        assert!(message.contains(&held.to_string()), "{message}");
        assert_eq!(api.get(&format!("/at/{held}{MAP}")).body, then);
        let watch = api.get(&format!(
            "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={first}"
        ));
        assert_eq!(watch.body["object"]["code"], 410, "{watch:?}");
    }
    let listed = cluster.reckon_json(&["hold", "--list"]);
    assert_eq!(
        listed["items"],
        json!([{"name": "audit", "revision": held}])
    );
    // Who held it is in the history of all.
    let events = cluster
        .api(1)
        .get(&format!("/reckon/v1/events?from={held}&limit=5"))
        .body;
    let by: Vec<&Value> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["intent"] == "Hold")
        .map(|event| &event["actor"]["name"])
        .collect();
    assert_eq!(by, ["admin"], "{events}");

    // Released, it goes as the rest does; what is newer is whole.
    cluster.reckon_json(&["hold", "audit", "--release"]);
    let newest = revision(&cluster);
    let passed = wait::until("the horizon to pass what was held", 60, || {
        horizon(&cluster, newest - KEPT - 100)
    });
    assert!(passed <= newest - KEPT + 100, "{passed} of {newest}");
    assert_eq!(cluster.api(2).get(&format!("/at/{held}{MAP}")).code, 410);
    let history = cluster.reckon_json(&["history", "configmap/counted"]);
    let oldest = &history["items"][0];
    assert_eq!(
        oldest["change"], "updated",
        "what it was before is known still: {oldest}"
    );
    // Removing goes on beside: the chain holds while it does, and after.
    for _ in 0..3 {
        cluster.reckon_json(&["verify"]);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    // And a start does not mind.
    cluster.stop();
    cluster.up();
    assert_eq!(cluster.api(3).get(&format!("/at/{held}{MAP}")).code, 410);
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}

fn update(cluster: &Cluster, n: u64) -> u64 {
    let patch = json!({"data": {"n": n.to_string()}}).to_string();
    let answer = cluster
        .api(1)
        .send(
            Method::PATCH,
            MAP,
            "application/merge-patch+json",
            patch.into_bytes(),
            10,
        )
        .unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
    number(&answer.body["metadata"]["resourceVersion"])
}

fn revision(cluster: &Cluster) -> u64 {
    let list = cluster
        .api(1)
        .get("/api/v1/namespaces/default/configmaps")
        .body;
    number(&list["metadata"]["resourceVersion"])
}

fn number(version: &Value) -> u64 {
    version.as_str().unwrap().parse().unwrap()
}

/// The lowest of the servers' horizons, once it is at least this.
fn horizon(cluster: &Cluster, least: u64) -> Result<u64, Value> {
    let status = cluster.status();
    let horizons: Option<Vec<u64>> = status["members"].as_array().map(|members| {
        members
            .iter()
            .map(|member| member["horizon"].as_u64().unwrap_or(0))
            .collect()
    });
    match horizons.and_then(|horizons| horizons.into_iter().min()) {
        Some(lowest) if lowest >= least => Ok(lowest),
        _ => Err(status),
    }
}
