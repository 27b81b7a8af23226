//! A server that stood still for longer than the log reaches back: it is rebuilt from a snapshot, slows nobody meanwhile, and what it
//! was rebuilt to is what it has when it is killed and started again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Options};
use crate::wait;
use crate::writes::Writes;

/// A snapshot every 64 KiB of log; 50 entries are kept behind it.
const FLAGS: &[&str] = &[
    "--snapshot-log-bytes",
    "65536",
    "--snapshot-keep-entries",
    "50",
];

/// No write takes so long, on a machine that is busy: whoever waited for the one that stands still would wait for all of that time.
const GAP_MAX: Duration = Duration::from_secs(2);

#[test]
fn it_is_rebuilt_from_a_snapshot() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 3,
        flags: FLAGS,
    });
    cluster.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 5, selector: {matchLabels: {app: web}}, \
         template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: none}]}}}}",
    );
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let leader = cluster.leader();
    let behind = ["server-3", "server-2"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    let number: u16 = behind.trim_start_matches("server-").parse().unwrap();
    let pointer = cluster.path(behind).join("state.current");
    assert!(!pointer.exists(), "it has what it was founded with");

    cluster.signal(cluster.pid(behind).unwrap(), Signal::SIGSTOP);
    let writes = Writes::start(&cluster, "meanwhile");
    let others: Vec<u16> = (1..=3).filter(|other| *other != number).collect();
    // 5,000 bytes a write or so with what it brings along: a few hundred are far more than what is kept.
    wait::until("the log to be cut off beyond it", 60, || {
        let purged: Vec<f64> = others
            .iter()
            .map(|server| cluster.api(*server).metric("reckon_raft_log_purged_index"))
            .collect();
        match purged.iter().all(|purged| *purged > 400.0) {
            true => Ok(()),
            false => Err(purged),
        }
    });
    let leader: u16 = cluster
        .leader()
        .trim_start_matches("server-")
        .parse()
        .unwrap();
    let lag = format!("reckon_raft_replication_lag_entries{{peer=\"{behind}\"}}");
    let lags = cluster.api(leader).metric(&lag);
    assert!(lags > 300.0, "{lags}");
    let acknowledged = writes.finish();
    println!(
        "{} writes were acknowledged while {behind} stood still, longest gap {:.2} s",
        acknowledged.count,
        acknowledged.longest_gap.as_secs_f32()
    );
    let asked = Instant::now();
    let status = cluster.status();
    let hangs = &status["members"][usize::from(number - 1)];
    assert!(hangs["error"].is_string(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{status}");
    cluster.signal(cluster.pid(behind).unwrap(), Signal::SIGCONT);
    assert!(
        acknowledged.longest_gap < GAP_MAX,
        "a write took {:?} while {behind} stood still",
        acknowledged.longest_gap
    );

    cluster.wait_until_level();
    assert!(pointer.exists(), "{behind} caught up from the log alone");
    acknowledged.check_present(&cluster);
    let lags = cluster.api(leader).metric(&lag);
    assert!(lags < 50.0, "{lags}");
    let installed = cluster
        .api(number)
        .metric("reckon_raft_snapshots_installed_total");
    assert!(installed >= 1.0, "{installed}");
    // Its history is whole: from before it stood still, and of what it was not there for.
    let api = cluster.api(number);
    let history =
        api.get("/reckon/v1/history?resource=deployments.apps&namespace=default&name=web");
    assert_eq!(history.code, 200, "{history:?}");
    let verified = cluster.reckon_json(&["verify"]);
    let servers = verified["servers"].as_array().map_or(0, Vec::len);
    assert_eq!((&verified["ok"], servers), (&true.into(), 3), "{verified}");

    let before = cluster.pid(behind);
    cluster.kill_9(&[behind]);
    wait::until("it to be started again", 30, || match cluster.pid(behind) {
        pid if pid.is_some() && pid != before => Ok(()),
        pid => Err(pid),
    });
    cluster.wait_until_serving(number);
    cluster.wait_until_level();
    acknowledged.check_present(&cluster);
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}
