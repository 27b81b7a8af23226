//! A server that found its history to be another than the majority's: what it says, and how it is put right.
//!
//! How it finds out is shown in the simulation (`directed/diverged.rs`), where an apply can be made to go wrong; here it is told that it did.

use serde_json::json;

use crate::cluster::{Cluster, Options, said_by};
use crate::members::wait_for;
use crate::process::Process;
use crate::wait;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WHY: &str = "server-1 has diverged, says the test";

#[test]
fn it_serves_nobody_and_is_replaced_under_an_empty_directory() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &[],
    });
    cluster.kubectl(&["create", "configmap", "before"]);
    std::fs::write(cluster.path("server-1/fenced"), WHY).unwrap();
    let before = cluster.pid("server-1");
    cluster.kill_9(&["server-1"]);
    let api = cluster.api(1);
    wait::until("it to be started again", 60, || {
        match cluster.pid("server-1") {
            pid if pid.is_some() && pid != before => Ok(()),
            pid => Err(pid),
        }
    });
    wait::until("it to answer", 30, || {
        match api.send(http::Method::GET, "/livez", "", Vec::new(), 5) {
            Ok(answer) if answer.code == 200 => Ok(()),
            other => Err(other),
        }
    });

    // Neither reads nor writes, old ones neither; it says why. It lives, and is not ready.
    for path in [
        format!("{MAPS}/before"),
        format!("{MAPS}/before?resourceVersion=0"),
        format!("/at/1{MAPS}"),
    ] {
        let answer = api.get(&path);
        assert_eq!(
            (answer.code, &answer.body["message"]),
            (503, &json!(WHY)),
            "{answer:?}"
        );
    }
    let output = cluster.kubectl_with(&["create", "configmap", "never"], "");
    assert!(!output.status.success(), "{}", said_by(&output));
    assert!(said_by(&output).contains(WHY), "{}", said_by(&output));
    assert_eq!(api.get("/readyz").code, 500);
    assert_eq!(api.metric("reckon_fenced"), 1.0);
    let said = said_by(&cluster.reckon(&["status"]));
    assert!(said.contains("fenced") && said.contains(WHY), "{said}");
    assert_ne!(cluster.leader(), "server-1");
    // The others serve, and agents are theirs.
    assert_eq!(cluster.api(2).get(&format!("{MAPS}/before")).code, 200);

    // reckon asks it first, for the kubeconfig names it first, and goes on to the next.
    let removed = cluster.reckon(&["member", "remove", "server-1"]);
    assert!(removed.status.success(), "{}", said_by(&removed));
    let address = format!("127.0.0.1:{}", cluster.port + 3);
    let added = cluster.reckon_json(&["member", "add", "server-4", &address, "--promote"]);
    let _fourth = Process::join(&cluster, "server-4", &address, &added);
    wait_for(&cluster, "server-4", "voter");
    cluster.stop();
}
