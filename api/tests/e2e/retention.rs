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

/// Of Events and Leases.
const EPHEMERAL_KEPT: u64 = 100;
const CHANGES: u64 = 150;

#[test]
fn events_and_leases_may_go_before_the_rest() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--ephemeral-history-retention", "100"],
    });
    let api = cluster.api(1);
    let named = |more: Value| {
        let mut object = json!({"metadata": {"name": "one"}});
        let fields = object.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        object
    };
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    // Where it is, and its resource if that goes before the rest. Nodes are observed too, but decisions read them.
    let rows = [
        (
            "/api/v1/namespaces/default/events",
            Some("events"),
            named(json!({"involvedObject": about, "reason": "Tested", "type": "Normal"})),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            Some("coordination.k8s.io/leases"),
            named(json!({"spec": {"holderIdentity": "somebody"}})),
        ),
        ("/api/v1/nodes", None, named(json!({}))),
        (
            "/api/v1/namespaces/default/configmaps",
            None,
            named(json!({})),
        ),
    ];
    let make = |(path, _, object): &(&str, Option<&str>, Value)| {
        let body = object.to_string().into_bytes();
        let answer = api.send(Method::POST, path, "application/json", body, 10);
        let answer = answer.unwrap();
        assert_eq!(answer.code, 201, "{answer:?}");
        number(&answer.body["metadata"]["resourceVersion"])
    };
    let made: Vec<u64> = rows.iter().map(make).collect();
    let then = *made.last().unwrap();
    let read_then = |path: &str| api.get(&format!("/at/{then}{path}/one"));
    let were: Vec<Value> = rows.iter().map(|(path, ..)| read_then(path).body).collect();
    for n in 0..CHANGES {
        for (path, ..) in &rows {
            let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}}).to_string();
            let (path, kind) = (format!("{path}/one"), "application/merge-patch+json");
            let answer = api.send(Method::PATCH, &path, kind, patch.into_bytes(), 10);
            assert_eq!(answer.unwrap().code, 200);
        }
    }
    let newest = revision(&cluster);

    let own = |status: &Value, server: u16, resource: &str| {
        let member = &status["members"][usize::from(server - 1)];
        member["horizons"][resource].as_u64().unwrap_or(0)
    };
    wait::until(
        "both horizons to move, and what is before them to go",
        60,
        || {
            let status = cluster.status();
            let there = (1..=3).all(|server| {
                let moved = rows.iter().filter_map(|(_, resource, _)| *resource);
                let least = newest - EPHEMERAL_KEPT - 100;
                let mut horizons = moved.map(|resource| own(&status, server, resource));
                let metrics = cluster.api(server);
                let gone = metrics.metric("reckon_history_pruned_events_total");
                horizons.all(|horizon| horizon >= least) && gone >= (least - then) as f64
            });
            if there { Ok(()) } else { Err(status) }
        },
    );
    for server in 1..=3 {
        let api = cluster.api(server);
        for ((path, resource, _), was) in rows.iter().zip(&were) {
            let before = cluster.status();
            let one = api.get(&format!("/at/{then}{path}/one"));
            let all = api.get(&format!("/at/{then}{path}"));
            let watch = api.get(&format!(
                "{path}?watch=1&timeoutSeconds=1&resourceVersion={then}"
            ));
            let Some(resource) = resource else {
                assert_eq!((one.code, &one.body), (200, was));
                assert_eq!(all.code, 200, "{all:?}");
                let first = watch.body[0].clone();
                assert_eq!(first["type"], "MODIFIED", "{watch:?}");
                continue;
            };
            // Each by its own horizon, which may go on meanwhile.
            let after = cluster.status();
            let metric =
                format!("reckon_history_resource_horizon_revision{{resource=\"{resource}\"}}");
            let horizons = own(&before, server, resource)..=own(&after, server, resource);
            assert!(*horizons.start() > then, "{before}");
            for refused in [&one, &all] {
                assert_eq!(
                    (refused.code, &refused.body["reason"]),
                    (410, &json!("Expired")),
                    "{refused:?}"
                );
                let message = refused.body["message"].as_str().unwrap();
                let horizon = message.rsplit(' ').next().unwrap();
                assert!(horizons.contains(&horizon.parse().unwrap()), "{message}");
            }
            assert_eq!(watch.body["object"]["code"], 410, "{watch:?}");
            assert!(api.metric(&metric) >= *horizons.start() as f64);
        }
        assert_eq!(api.metric("reckon_history_horizon_revision"), 0.0);
    }
    let said = cluster.reckon(&["status"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("History is kept of coordination.k8s.io/leases from "),
        "{said}"
    );
    // What happened to them is known still, and by whom; and the chain holds without the bodies.
    for ((path, resource, _), made) in rows.iter().zip(&made) {
        let event = api.get(&format!("/reckon/v1/events?from={made}&limit=1"));
        let item = &event.body["items"][0];
        assert_eq!(
            (&item["intent"], &item["actor"]["name"]),
            (&json!("Create"), &json!("admin")),
            "{path}: {item}"
        );
        let key = item["keys"][0].as_str().unwrap_or_default();
        assert!(key.starts_with(resource.unwrap_or_default()), "{item}");
    }
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}
