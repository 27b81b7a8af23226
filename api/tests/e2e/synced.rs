//! Every acknowledgement follows a sync. A process that is killed loses nothing even without syncs, so the servers' own counts of them,
//! RocksDB's, are read before and after each write: each must have been synced on a majority.

use http::Method;
use serde_json::json;

use crate::api::Api;
use crate::cluster::Cluster;

const WRITES: usize = 30;
const METRIC: &str = "reckon_raft_log_syncs_total";

#[test]
fn every_acknowledgement_follows_a_sync_on_a_majority() {
    let mut cluster = Cluster::servers();
    let servers = [1, 2, 3].map(|server| cluster.api(server));
    // The first writes of a cluster, its namespaces and what goes with them, are over.
    cluster.kubectl(&[
        "wait",
        "ns/default",
        "--for=jsonpath={.status.phase}=Active",
        "--timeout=30s",
    ]);
    cluster.wait_until_level();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (idle, still_idle) = (syncs(&servers), {
        std::thread::sleep(std::time::Duration::from_secs(1));
        syncs(&servers)
    });
    assert_eq!(
        idle, still_idle,
        "nothing else syncs, so what follows is the writes'"
    );
    for number in 0..WRITES {
        let before = syncs(&servers);
        let name = format!("synced-{number}");
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let path = "/api/v1/namespaces/default/configmaps";
        let body = body.to_string().into_bytes();
        let answer = servers[number % 3].send(Method::POST, path, "application/json", body, 30);
        assert_eq!(answer.unwrap().code, 201);
        let after = syncs(&servers);
        let synced = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| after > before);
        assert!(
            synced.count() >= 2,
            "write {number} was acknowledged; syncs {before:?} then {after:?}"
        );
    }
    cluster.stop();
}

fn syncs(servers: &[Api]) -> Vec<u64> {
    let of = |server: &Api| server.metric(METRIC) as u64;
    servers.iter().map(of).collect()
}
