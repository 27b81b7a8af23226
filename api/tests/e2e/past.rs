//! The past, as a user reads it: kubectl on `/at/…`, and reckon's own history, why, diff and verify.

use serde_json::Value;

use crate::cluster::{Cluster, Options, said_by};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "reckon.test/web:v1"}]
"#;

#[test]
fn before_and_after_a_rollout() {
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &[],
    });
    cluster.apply(MANIFEST);
    rolled_out(&cluster);
    let before = revision(&cluster);
    let pods_before = pod_names(&cluster.kubectl_json(&["get", "pods"]));
    // Times are whole seconds to whoever types them.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let between = utc_now();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    cluster.kubectl(&["set", "image", "deployment/web", "web=reckon.test/web:v2"]);
    rolled_out(&cluster);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    rolled_out(&cluster);
    let after = revision(&cluster);

    for server in 0..3 {
        let at = |moment: &str| format!("https://127.0.0.1:{}/at/{moment}", cluster.port + server);
        for (moment, image, replicas) in [
            (before.to_string(), "reckon.test/web:v1", 3),
            (between.clone(), "reckon.test/web:v1", 3),
            (after.to_string(), "reckon.test/web:v2", 4),
        ] {
            let deployment =
                cluster.kubectl_json(&["--server", &at(&moment), "get", "deployment", "web"]);
            let spec = &deployment["spec"];
            assert_eq!(
                spec["template"]["spec"]["containers"][0]["image"], image,
                "at {moment}"
            );
            assert_eq!(spec["replicas"], replicas, "at {moment}");
            assert_eq!(
                deployment["status"]["availableReplicas"], replicas,
                "at {moment}"
            );
        }
        let pods = cluster.kubectl_json(&["--server", &at(&before.to_string()), "get", "pods"]);
        assert_eq!(pod_names(&pods), pods_before);
        let table = cluster.kubectl(&["--server", &at(&before.to_string()), "get", "pods"]);
        assert_eq!(
            table
                .lines()
                .filter(|line| line.contains("Running"))
                .count(),
            3,
            "{table}"
        );
    }
    check_read_only(&cluster, before);
    check_history(&cluster);
    check_why(&cluster);
    check_diff(&cluster, before, after);
    let verified = cluster.reckon_json(&["verify"]);
    assert_eq!(verified["ok"], true, "{verified}");
    for server in verified["servers"].as_array().unwrap() {
        assert!(
            server["ok"] == true && server["events"].as_u64() > Some(10),
            "{server}"
        );
    }
    cluster.stop();
}

fn check_read_only(cluster: &Cluster, revision: u64) {
    let server = format!("https://127.0.0.1:{}/at/{revision}", cluster.port);
    let output = cluster.kubectl_with(&["--server", &server, "delete", "deployment", "web"], "");
    assert!(!output.status.success(), "{}", said_by(&output));
    cluster.kubectl(&["get", "deployment", "web"]);
}

fn check_history(cluster: &Cluster) {
    let history = cluster.reckon_json(&["history", "deployment/web"]);
    let by_user: Vec<(&str, &str, &str)> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["actor"]["kind"] == "user")
        .map(|item| {
            (
                item["actor"]["name"].as_str().unwrap(),
                item["intent"].as_str().unwrap(),
                item["change"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(by_user.len(), 3, "create, set image, scale: {by_user:?}");
    assert_eq!(by_user[0], ("admin", "Create", "created"));
    assert!(
        by_user[1..]
            .iter()
            .all(|(name, _, change)| (*name, *change) == ("admin", "updated")),
        "{by_user:?}"
    );
    let text = String::from_utf8(cluster.reckon(&["history", "deploy/web"]).stdout).unwrap();
    assert!(
        text.lines()
            .any(|line| line.contains("admin by kubectl") && line.contains("spec.replicas: 3 → 4")),
        "{text}"
    );
}

/// From a pod back to the user's command.
fn check_why(cluster: &Cluster) {
    let pods = cluster.kubectl_json(&["get", "pods"]);
    for pod in pod_names(&pods) {
        let chain = cluster.reckon_json(&["why", &format!("pod/{pod}")])["chain"]
            .as_array()
            .cloned()
            .unwrap();
        let actors: Vec<(&str, &str)> = chain
            .iter()
            .map(|event| {
                (
                    event["actor"]["kind"].as_str().unwrap(),
                    event["actor"]["name"].as_str().unwrap(),
                )
            })
            .collect();
        assert!(
            chain.len() >= 3,
            "a pod comes of a ReplicaSet, which comes of a Deployment: {actors:?}"
        );
        assert_eq!(actors[0].0, "reconciler", "{actors:?}");
        assert_eq!(*actors.last().unwrap(), ("user", "admin"), "{actors:?}");
        let last = &chain.last().unwrap()["actor"];
        assert!(
            last["client"].as_str().unwrap().starts_with("kubectl"),
            "{last}"
        );
        let text =
            String::from_utf8(cluster.reckon(&["why", &format!("pod/{pod}")]).stdout).unwrap();
        assert!(
            text.contains("because") && text.contains("admin by kubectl"),
            "{text}"
        );
    }
}

fn check_diff(cluster: &Cluster, before: u64, after: u64) {
    let output = cluster.reckon(&[
        "diff",
        "deployment/web",
        "--from",
        &before.to_string(),
        "--to",
        &after.to_string(),
    ]);
    let text = said_by(&output);
    for line in [
        "-  replicas: 3",
        "+  replicas: 4",
        "reckon.test/web:v1",
        "reckon.test/web:v2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("managedFields"), "{text}");
}

fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
}

fn pod_names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}

fn revision(cluster: &Cluster) -> u64 {
    cluster.wait_until_level()["members"][0]["revision"]
        .as_u64()
        .unwrap()
}

/// Now, as a user would type it.
fn utc_now() -> String {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
