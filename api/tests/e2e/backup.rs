//! Backups as an operator makes them, and clusters made from them: as of a moment, with the whole history, and without what only was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, Options, free_ports, said_by};
use crate::wait;
use crate::writes::Writes;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: shop}
data: {colour: red}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
stringData: {word: hush}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
spec: {containers: [{name: c, image: none}]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: held, namespace: shop}
spec: {holderIdentity: somebody, leaseDurationSeconds: 3600}
---
apiVersion: v1
kind: Event
metadata: {name: told, namespace: shop}
involvedObject: {kind: Pod, namespace: shop, name: bare}
reason: Told
message: by the test
type: Normal
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: none}]}
"#;

#[test]
fn a_cluster_as_of_a_moment() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("file://{}", place.path().join("backups").display());
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 2,
        flags: &["--servers", "3"],
    });
    cluster.apply(OBJECTS);
    runs(&cluster);
    let get = |cluster: &Cluster, arguments: &[&str]| {
        cluster.kubectl_json(&[&["-n", "shop", "get"][..], arguments].concat())
    };
    let then = ["pod/bare", "service/web", "configmap/a", "deployment/web"];
    let then = then.map(|object| get(&cluster, &[object]));
    let observed = observed(&cluster);
    for kind in OBSERVED {
        let some = observed.iter().any(|one| one.starts_with(kind));
        assert!(some, "no {kind} in {observed:?}");
    }
    let id = |cluster: &Cluster| cluster.api(1).get("/reckon/v1/status").body["cluster"].clone();
    let old = id(&cluster);
    let moment = cluster.wait_until_level()["members"][0]["revision"].clone();

    let first = cluster.reckon_json(&["backup", "create", "--to", &url]);
    assert!(first["files"].as_u64() > Some(0), "{first}");
    cluster.kubectl(&[
        "-n",
        "shop",
        "patch",
        "configmap",
        "a",
        "-p",
        r#"{"data":{"colour":"blue"}}"#,
    ]);
    cluster.kubectl(&["-n", "shop", "delete", "secret", "s"]);
    cluster.kubectl(&["-n", "shop", "delete", "deployment", "web"]);
    cluster.kubectl(&["-n", "shop", "create", "configmap", "later"]);
    let second = cluster.reckon_json(&["backup", "create", "--to", &url]);
    assert!(
        second["files"].as_u64() > Some(0) && second["bytes"].as_u64() < first["bytes"].as_u64(),
        "only what is new: {first} then {second}"
    );
    let last = second["revision"].as_u64().unwrap();
    let listed = cluster.reckon_json(&["backup", "list", "--from", &url]);
    assert_eq!(
        (&listed["items"][0]["last"], &listed["items"][0]["first"]),
        (&json!(last), &json!(1)),
        "{listed}"
    );
    let verified = cluster.reckon_json(&["backup", "verify", "--from", &url]);
    assert_eq!(verified["digest"], second["digest"]);
    damaged_files_are_named(&cluster, place.path(), &listed);

    cluster.stop();
    let directory = cluster.path("server-1");
    fs::remove_dir_all(cluster.path("")).unwrap();
    let directory = directory.to_string_lossy().into_owned();
    let at = moment.to_string();
    let restore = |more: &[&str]| {
        let arguments = ["restore", "--from", &url, "--data-dir", &directory];
        cluster.reckon(&[&arguments[..], more].concat())
    };
    for (more, part) in [
        (&["--at", "99999999"][..], "the archive ends at revision"),
        (&["--at", "noon"], "neither a revision nor a time"),
    ] {
        let output = restore(more);
        let said = said_by(&output);
        assert!(!output.status.success() && said.contains(part), "{said}");
        assert!(!Path::new(&directory).exists(), "nothing was made");
    }
    let output = restore(&["--at", &at, "-o", "json"]);
    assert!(output.status.success(), "{}", said_by(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&made["at"], &made["beforeRevision"], &made["gap"]),
        (&moment, &json!(last), &json!(1_000_000))
    );
    assert_eq!(
        (&made["before"], &made["beforeDigest"]),
        (&old, &second["digest"])
    );
    let again = restore(&["--at", &at]);
    assert!(!again.status.success(), "{}", said_by(&again));
    assert!(
        said_by(&again).contains("has an earlier restore"),
        "{}",
        said_by(&again)
    );

    // Before any agent comes.
    cluster.set("--servers", "1");
    cluster.set("--simulated-nodes", "0");
    cluster.up();
    assert_eq!(id(&cluster), made["cluster"]);
    assert_ne!(id(&cluster), old);
    nothing_observed_came_back(&cluster, &observed);
    cluster.stop();
    cluster.set("--simulated-nodes", "2");
    cluster.up();
    runs(&cluster);
    let [bare, service, map, deployment] = &then;
    let of = |object: &Value, field: &str| object["metadata"][field].clone();
    let now = get(&cluster, &["configmap/a"]);
    assert_eq!(
        (&now["data"], of(&now, "uid")),
        (&map["data"], of(map, "uid"))
    );
    let version: u64 = of(&now, "resourceVersion")
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(version > last + 1_000_000, "{version} of {last}");
    let now = get(&cluster, &["pod/bare"]);
    assert_ne!(of(&now, "uid"), of(bare, "uid"), "it was made anew");
    let now = get(&cluster, &["service/web"]);
    assert_eq!(now["spec"]["clusterIP"], service["spec"]["clusterIP"]);
    let now = get(&cluster, &["deployment/web"]);
    assert_ne!(
        of(&now, "uid"),
        of(deployment, "uid"),
        "it had been deleted"
    );
    assert_eq!(now["spec"], deployment["spec"]);
    cluster.kubectl(&["-n", "shop", "get", "secret", "s"]);
    let gone = cluster.kubectl_with(&["-n", "shop", "get", "configmap", "later"], "");
    assert!(said_by(&gone).contains("not found"), "{}", said_by(&gone));

    // Its history goes back into the old one's, says what was done, and can be read.
    let history = cluster.reckon_json(&["history", "configmap/a", "-n", "shop"]);
    let history = history.to_string();
    for part in ["red", "blue", "Restore"] {
        assert!(history.contains(part), "{part} is not in {history}");
    }
    let past = cluster
        .api(1)
        .get(&format!("/at/{last}/api/v1/namespaces/shop/configmaps/a"));
    assert_eq!(past.body["data"]["colour"], "blue", "{past:?}");
    cluster.reckon_json(&["verify"]);

    // It is a cluster like any other: it comes back, and it grows.
    cluster.stop();
    cluster.set("--servers", "3");
    cluster.up();
    cluster.wait_until_level();
    assert_eq!(get(&cluster, &["configmap/a"])["data"]["colour"], "red");
    cluster.stop();
}

/// Archiving was broken off for longer than history is kept.
#[test]
fn a_moment_from_before_a_gap() {
    const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
    let place = tempfile::tempdir().unwrap();
    let url = format!("file://{}", place.path().join("backups").display());
    let mut cluster = Cluster::start(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--servers", "1", "--history-retention", "100"],
    });
    cluster.kubectl(&["create", "configmap", "a", "--from-literal=n=before"]);
    let first = cluster.reckon_json(&["backup", "create", "--to", &url]);
    let before = first["revision"].as_u64().unwrap();
    // A minute long history would wait for a backup that may go on; only its leader knows of it.
    cluster.stop();
    cluster.up();
    for n in 0..300 {
        let patch = json!({"data": {"n": n.to_string()}}).to_string();
        let patched = cluster.api(1).send(
            Method::PATCH,
            MAP,
            "application/merge-patch+json",
            patch.into_bytes(),
            10,
        );
        assert_eq!(patched.unwrap().code, 200);
    }
    wait::until("the horizon to pass what was archived", 60, || {
        let status = cluster.status();
        match status["members"][0]["horizon"].as_u64() {
            Some(horizon) if horizon > before + 50 => Ok(()),
            _ => Err(status),
        }
    });
    let second = cluster.reckon_json(&["backup", "create", "--to", &url]);
    let last = second["revision"].as_u64().unwrap();
    let listed = cluster.reckon_json(&["backup", "list", "--from", &url]);
    let items = listed["items"].as_array().unwrap();
    let ends: Vec<&Value> = items.iter().map(|item| &item["last"]).collect();
    assert_eq!(ends, [&json!(before), &json!(last)], "{listed}");
    assert_eq!(listed["gaps"][0]["first"], json!(before + 1), "{listed}");
    let said = said_by(&cluster.reckon(&["backup", "list", "--from", &url]));
    assert!(said.contains("are not there"), "{said}");
    let verified = cluster.reckon_json(&["backup", "verify", "--from", &url]);
    assert_eq!(verified["ok"], json!(true), "{verified}");
    assert_eq!(verified["digest"], second["digest"], "{verified}");
    let digests = verified["stretches"].as_array().unwrap();
    assert_eq!(digests[0]["digest"], first["digest"], "{verified}");

    cluster.stop();
    let directory = cluster.path("server-1");
    fs::remove_dir_all(cluster.path("")).unwrap();
    let directory = directory.to_string_lossy().into_owned();
    let restore = |at: u64| {
        let at = at.to_string();
        let arguments = ["restore", "--from", &url, "--data-dir", &directory];
        cluster.reckon(&[&arguments[..], &["--at", &at]].concat())
    };
    let output = restore(before + 1);
    let said = said_by(&output);
    let can = format!("What can be restored: revisions 1 to {before} (");
    assert!(!output.status.success() && said.contains(&can), "{said}");
    let output = restore(before);
    let said = said_by(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&format!("the backup reaches {last}")),
        "{said}"
    );
    cluster.up();
    let map = cluster.kubectl_json(&["get", "configmap", "a"]);
    assert_eq!(map["data"]["n"], "before");
    cluster.kubectl(&["create", "configmap", "b"]);
    let map = cluster.kubectl_json(&["get", "configmap", "b"]);
    let version = map["metadata"]["resourceVersion"].as_str().unwrap();
    let version: u64 = version.parse().unwrap();
    assert!(version > last + 1_000_000, "{version} of {last}");
    cluster.reckon_json(&["verify"]);
    cluster.stop();
}

/// What nodes and controllers make of a desired state, pods that somebody made himself included: their kinds.
const OBSERVED: [&str; 5] = ["nodes", "leases", "events", "endpointslices", "pods"];

/// `pods UID` of each.
fn observed(cluster: &Cluster) -> BTreeSet<String> {
    let of_kind = |kind: &&str| {
        let list = cluster.kubectl_json(&["get", kind, "--all-namespaces"]);
        let items = list["items"].as_array().unwrap().clone();
        let kind = kind.to_string();
        items
            .into_iter()
            .map(move |item| format!("{kind} {}", item["metadata"]["uid"].as_str().unwrap()))
    };
    OBSERVED.iter().flat_map(of_kind).collect()
}

/// No node is there yet: what there is of pods is bound to none and has no status, and what controllers made is new.
fn nothing_observed_came_back(cluster: &Cluster, before: &BTreeSet<String>) {
    let now = wait::until("the deployment's pods", 30, || {
        let pods = cluster.kubectl_json(&["-n", "shop", "get", "pods"]);
        match pods["items"].as_array().unwrap().len() {
            3 => Ok(observed(cluster)),
            _ => Err(pods),
        }
    });
    let both: Vec<_> = now.intersection(before).collect();
    assert!(both.is_empty(), "{both:?} came back");
    for kind in ["nodes", "leases"] {
        let some: Vec<_> = now.iter().filter(|one| one.starts_with(kind)).collect();
        assert!(some.is_empty(), "{some:?}: nobody is there to have made it");
    }
    let pods = cluster.kubectl_json(&["-n", "shop", "get", "pods"]);
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["spec"]["nodeName"], Value::Null, "{pod}");
        assert_eq!(pod["status"]["phase"], "Pending", "{pod}");
        for field in [
            "podIP",
            "podIPs",
            "hostIP",
            "startTime",
            "containerStatuses",
        ] {
            assert_eq!(pod["status"][field], Value::Null, "{pod}");
        }
    }
    let web = cluster.kubectl_json(&["-n", "shop", "get", "deployment", "web"]);
    for field in ["readyReplicas", "availableReplicas"] {
        assert!(
            web["status"][field].as_u64().unwrap_or_default() == 0,
            "{web}"
        );
    }
    let slices = cluster.kubectl_json(&["-n", "shop", "get", "endpointslices"]);
    for slice in slices["items"].as_array().unwrap() {
        let endpoints = slice["endpoints"].as_array().map_or(0, Vec::len);
        assert_eq!(endpoints, 0, "{slice}");
    }
}

/// The nodes are there, and the pods run.
fn runs(cluster: &Cluster) {
    cluster.kubectl(&[
        "-n",
        "shop",
        "rollout",
        "status",
        "deployment/web",
        "--timeout=60s",
    ]);
    cluster.kubectl(&[
        "-n",
        "shop",
        "wait",
        "pod/bare",
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    let pods = cluster.kubectl_json(&["-n", "shop", "get", "pods", "-l", "app=web"]);
    let pods = pods["items"].as_array().unwrap();
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]);
    for pod in pods {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        assert!(
            nodes.contains(node) && !node.is_empty(),
            "{pod} is on none of {nodes}"
        );
    }
}

/// One bit of one file, and the file is named; nothing is loaded.
fn damaged_files_are_named(cluster: &Cluster, place: &Path, listed: &Value) {
    let damaged = place.join("damaged");
    let id = listed["items"][0]["cluster"].as_str().unwrap();
    let events = damaged.join(id).join("events");
    fs::create_dir_all(&events).unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for file in fs::read_dir(place.join("backups").join(id).join("events")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), events.join(file.file_name())).unwrap();
        files.push(events.join(file.file_name()));
    }
    files.sort();
    let mut content = fs::read(&files[0]).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&files[0], content).unwrap();
    let url = format!("file://{}", damaged.display());
    let output = cluster.reckon(&["backup", "verify", "--from", &url]);
    let (said, name) = (
        said_by(&output),
        files[0].file_name().unwrap().to_string_lossy(),
    );
    assert!(
        !output.status.success() && said.contains(&*name) && said.contains("checksum"),
        "{said}"
    );
    fs::remove_file(&files[0]).unwrap();
    let said = said_by(&cluster.reckon(&["backup", "verify", "--from", &url]));
    assert!(said.contains("are missing before it"), "{said}");
}

/// A real S3 server in a process of its own.
struct S3 {
    port: u16,
    server: Child,
    _folder: TempDir,
}

impl S3 {
    /// None where there is none to be had: said, and never so in CI.
    fn start() -> Option<Self> {
        let Ok(moto) = std::env::var("RECKON_MOTO") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "RECKON_MOTO says where moto lies: .ci/moto"
            );
            eprintln!(
                "skipped: RECKON_MOTO does not say where an S3 server lies (.ci/moto fetches one)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = free_ports();
        let server = Command::new("python3")
            .args([
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ])
            .env("PYTHONPATH", moto)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let s3 = Self {
            port,
            server,
            _folder: folder,
        };
        wait::until("the S3 server to take a bucket", 30, || s3.put("/backups"));
        Some(s3)
    }

    fn put(&self, path: &str) -> Result<(), String> {
        use std::io::{Read, Write};
        let mut connection = std::net::TcpStream::connect(("127.0.0.1", self.port))
            .map_err(|error| error.to_string())?;
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let sent = connection.write_all(request.as_bytes());
        sent.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        read.map_err(|error| error.to_string())?;
        match answer.contains(" 200 ") {
            true => Ok(()),
            false => Err(answer),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[test]
fn an_archive_in_s3_follows_and_outlives_the_leader() {
    let Some(s3) = S3::start() else { return };
    let url = "s3://backups/reckon";
    let mut cluster = Cluster::prepare(Options {
        agents: 0,
        simulated_nodes: 0,
        flags: &["--servers", "3", "--archive", url],
    });
    cluster.environment(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", s3.port)),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    cluster.up();
    let writes = Writes::start(&cluster, "archived");
    let archived = |cluster: &Cluster, revision: u64| {
        wait::until("the archive to reach that", 60, || {
            let status = cluster.status();
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let reached = members
                .iter()
                .filter_map(|member| member["archive"]["revision"].as_u64());
            match reached.max() {
                Some(reached) if reached >= revision => Ok(reached),
                _ => Err(status),
            }
        })
    };
    let some = archived(&cluster, 50);
    let leader = cluster.leader();
    cluster.kill_9(&[&leader]);
    archived(&cluster, some + 200);
    let acknowledged = writes.finish();
    let status = cluster.wait_until_level();
    let last = status["members"][0]["revision"].as_u64().unwrap();
    archived(&cluster, last);
    let verified = cluster.reckon_json(&["backup", "verify", "--from", url]);
    assert!(verified["last"].as_u64() >= Some(last), "{verified}");
    let listed = said_by(&cluster.reckon(&["backup", "list", "--from", url]));
    assert!(listed.contains("CLUSTER"), "{listed}");

    // An S3 that does not answer is said, and stops nobody.
    let pid = nix::unistd::Pid::from_raw(s3.server.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
    cluster.kubectl(&["create", "configmap", "while-it-hangs"]);
    let leader = cluster.leader();
    let number = leader.rsplit('-').next().unwrap().parse().unwrap();
    let lag_s = || cluster.api(number).metric("reckon_archive_lag_seconds");
    wait::until("the lag to be told", 25, || match lag_s() {
        lag_s if lag_s >= 8.0 => Ok(()),
        lag_s => Err(lag_s),
    });
    cluster.kubectl(&["create", "configmap", "while-it-still-hangs"]);
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    let last = cluster.wait_until_level()["members"][0]["revision"].as_u64();
    archived(&cluster, last.unwrap());
    wait::until("the lag to be gone", 60, || match lag_s() {
        lag_s if lag_s < 8.0 => Ok(()),
        lag_s => Err(lag_s),
    });

    cluster.stop();
    let directory = cluster.path("server-1").to_string_lossy().into_owned();
    fs::remove_dir_all(cluster.path("")).unwrap();
    let output = cluster.reckon(&[
        "restore",
        "--from",
        url,
        "--data-dir",
        &directory,
        "--revision-gap",
        "5000",
    ]);
    let said = said_by(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("5000 revisions behind that are passed over"),
        "{said}"
    );
    cluster.set("--servers", "1");
    cluster.up();
    let maps = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    let lost: Vec<_> = acknowledged
        .names
        .iter()
        .filter(|name| !maps.contains(&format!("configmap/{name}\n")))
        .collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.names.len());
    cluster.stop();
}
