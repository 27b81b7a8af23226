//! Two of three servers gone: what the last one says, and what became of a write that it took.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options, said_by};
use crate::wait;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn one_server_refuses_in_time_and_tells_outcomes_later() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--no-restart"],
    });
    cluster.kubectl(&["create", "configmap", "before"]);
    let leader = cluster.leader();
    let number: u16 = leader.trim_start_matches("server-").parse().unwrap();
    let others: Vec<String> = (1..=3)
        .filter(|other| *other != number)
        .map(|other| format!("server-{other}"))
        .collect();
    cluster.kill_9(&[&others[0], &others[1]]);
    let api = cluster.api(number);

    let began = Instant::now();
    let read = api.get(&format!("{MAPS}/before"));
    assert_eq!(
        (read.code, &read.body["reason"]),
        (503, &json!("ServiceUnavailable")),
        "{read:?}"
    );
    let message = read.body["message"].as_str().unwrap();
    assert!(message.contains("1 of 3 servers answered"), "{message}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // What needs no majority is served: what this server holds, the past, and that it lives.
    let local = api.get(&format!("{MAPS}/before?resourceVersion=0"));
    assert_eq!(local.code, 200, "{local:?}");
    let past = api.get("/at/1/api/v1/namespaces");
    assert_eq!(past.code, 200, "{past:?}");
    assert_eq!(api.get("/livez").code, 200);
    assert_eq!(api.get("/readyz").code, 500);
    let status = cluster.reckon(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.status.success() && said.contains("No majority"),
        "{said}"
    );

    let map = json!({"metadata": {"name": "unknown"}, "data": {"a": "b"}}).to_string();
    let path = format!("{MAPS}?timeout=2s");
    let write = api
        .send(
            Method::POST,
            &path,
            "application/json",
            map.into_bytes(),
            30,
        )
        .unwrap();
    assert_eq!(
        (write.code, &write.body["reason"]),
        (504, &json!("Timeout")),
        "{write:?}"
    );
    let message = write.body["message"].as_str().unwrap().to_owned();
    let id = message
        .split_once("history?id=")
        .and_then(|(_, rest)| rest.split(' ').next())
        .unwrap_or_else(|| panic!("the answer names no id to ask for: {message}"));

    // All of them again, on the same disks: the write is there or is not, and what is told of it says which.
    cluster.stop();
    cluster.up();
    let found = wait::until("the outcome or none", 30, || {
        let outcome = cluster.api(1).get(&format!("/reckon/v1/history?id={id}"));
        match outcome.code {
            200 | 404 => Ok(outcome),
            _ => Err(outcome),
        }
    });
    let there = cluster.api(1).get(&format!("{MAPS}/unknown"));
    assert_eq!(there.code, found.code, "{there:?} but {found:?}");
    if found.code == 200 {
        assert_eq!(found.body["outcome"], "accepted", "{found:?}");
        let version: &Value = &there.body["metadata"]["resourceVersion"];
        assert_eq!(version, &json!(found.body["revision"].to_string()));
    }
    // The same by command: the outcome, or that there is none to tell.
    let told = said_by(&cluster.reckon(&["history", "--id", id]));
    let says = match found.code {
        200 => format!("accepted as revision {}", found.body["revision"]),
        _ => found.body["message"].as_str().unwrap().to_owned(),
    };
    assert!(told.contains(&says), "{told}");
    cluster.stop();
}
