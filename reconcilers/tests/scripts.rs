//! Scripts with golden output: `scripts/*.txt`. A block is commands, `----`, and what they print; UPDATE_GOLDEN=1 writes the output anew.
//!
//! | command | does |
//! |---|---|
//! | `node NAME cpu [KEY=VALUE:EFFECT …]` | a Node, ready, with taints; came through the API |
//! | `session NAME open\|lost` | an agent's session |
//! | `deployment NAME replicas image`, `replicaset NAME replicas`, `pod NAME cpu`, `service NAME`, `namespace NAME` | one of these |
//! | `patch KEY JSON` | a merge patch |
//! | `delete KEY [finalizer]` | the API's DELETE; the finalizer is the propagation policy's |
//! | `ready [N]`, `unready N` | that many bound pods (all) become ready, in the order of names |
//! | `gone` | agents confirm that deleted pods are gone |
//! | `advance SECONDS`, `round`, `settle` | time, one round, rounds until rest; these print what was done |
//! | `show`, `cat KEY [field …]`, `events`, `waiting` | look |

// The scripts are files, and a variable says whether to write them; the reconcilers themselves may do neither.
#![allow(clippy::disallowed_methods)]
#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]

mod testbed;

use eventstore::Key;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use testbed::{Bed, deployment, node, pod, pod_spec};

#[test]
fn scripts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 8, "the scripts are gone");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut levelled = BTreeSet::new();
    for path in paths {
        let written = std::fs::read_to_string(&path).unwrap();
        let (played, checked) = play(&written);
        levelled.extend(checked);
        if update {
            std::fs::write(&path, &played).unwrap();
        } else if played != written {
            let first = written
                .lines()
                .zip(played.lines())
                .enumerate()
                .find(|(_, (written, played))| written != played);
            let (line, (expected, got)) =
                first.unwrap_or((written.lines().count(), ("(the end)", "(more)")));
            wrong.push(format!(
                "{}:{}\n  expected {expected}\n  got      {got}",
                path.display(),
                line + 1
            ));
        }
    }
    let every: BTreeSet<&str> = reconcilers::all(&reconcilers::Config::default())
        .iter()
        .map(|reconciler| reconciler.name())
        .collect();
    assert_eq!(
        levelled, every,
        "every reconciler proposes something in some script, and decides nothing on its own result"
    );
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE_GOLDEN=1 writes them anew",
        wrong.join("\n")
    );
}

/// The script with its output as it is now, and the reconcilers that proposed something in it.
fn play(script: &str) -> (String, BTreeSet<&'static str>) {
    let mut bed = Bed::new();
    bed.settle();
    bed.told.clear();
    let mut out = String::new();
    let mut printed = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        writeln!(out, "{line}").unwrap();
        if line == "----" {
            for old in lines.by_ref() {
                if old.is_empty() {
                    break;
                }
            }
            out.push_str(&std::mem::take(&mut printed));
            out.push('\n');
        } else if !line.is_empty() && !line.starts_with('#') {
            run(&mut bed, line, &mut printed);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    (out, bed.levelled)
}

fn run(bed: &mut Bed, line: &str, out: &mut String) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["namespace", name] => bed.namespace(name),
        ["node", name, cpu, ref taints @ ..] => {
            let mut object = node(name, cpu);
            let taint = |taint: &&str| {
                let (key, rest) = taint.split_once('=').unwrap();
                let (value, effect) = rest.split_once(':').unwrap();
                json!({ "key": key, "value": value, "effect": effect })
            };
            if !taints.is_empty() {
                object["spec"]["taints"] = taints.iter().map(taint).collect();
            }
            bed.put(&Key::new("nodes", "", name), &object);
        }
        ["session", name, "open"] => bed.open_session(name),
        ["session", name, "lost"] => bed.lose_session(name),
        ["deployment", name, replicas, image] => {
            bed.put(
                &Key::new("apps/deployments", "default", name),
                &deployment(name, replicas.parse().unwrap(), image),
            );
        }
        ["replicaset", name, replicas] => {
            let object = json!({
                "kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": { "name": name, "namespace": "default" },
                "spec": {
                    "replicas": replicas.parse::<i64>().unwrap(), "selector": { "matchLabels": { "app": name } },
                    "template": { "metadata": { "labels": { "app": name } }, "spec": pod_spec("img:1", "100m") },
                },
            });
            bed.put(&Key::new("apps/replicasets", "default", name), &object);
        }
        ["pod", name, cpu] => bed.put(
            &Key::new("pods", "default", name),
            &pod(name, &json!({ "app": name }), cpu),
        ),
        ["service", name] => {
            let object = json!({
                "kind": "Service", "apiVersion": "v1", "metadata": { "name": name, "namespace": "default" },
                "spec": { "selector": { "app": name }, "clusterIP": "10.96.0.9",
                    "ports": [{ "name": "web", "port": 80, "protocol": "TCP", "targetPort": "http" }] },
            });
            bed.put(&Key::new("services", "default", name), &object);
        }
        ["patch", at, ..] => {
            let patch = line.splitn(3, ' ').nth(2).unwrap();
            bed.patch(&key(bed, at), &serde_json::from_str(patch).unwrap());
        }
        ["delete", at] => bed.delete(&key(bed, at), None),
        ["delete", at, finalizer] => bed.delete(&key(bed, at), Some(finalizer)),
        ["ready"] => ready(bed, usize::MAX),
        ["ready", count] => ready(bed, count.parse().unwrap()),
        ["unready", count] => {
            let keys = bed
                .pod_keys()
                .into_iter()
                .filter(|key| is_ready(&bed.get(key).unwrap()));
            keys.take(count.parse().unwrap())
                .collect::<Vec<_>>()
                .iter()
                .for_each(|key| bed.make_unready(key));
        }
        ["gone"] => bed.confirm_gone(),
        ["advance", seconds] => bed.advance(seconds.parse::<i64>().unwrap() * 1000),
        ["round"] => {
            bed.round();
            told(bed, out);
        }
        ["settle"] => {
            bed.settle();
            told(bed, out);
        }
        ["show"] => show(bed, out),
        ["cat", at, ref path @ ..] => {
            let mut value = bed.get(&key(bed, at)).unwrap_or_default();
            for field in path {
                value = value[*field].clone();
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&value).unwrap()).unwrap();
        }
        ["events"] => {
            for event in bed.list("events") {
                let text = |field: &str| event[field].as_str().unwrap_or("").to_owned();
                let about = &event["involvedObject"];
                let subject = format!(
                    "{}/{}",
                    about["kind"].as_str().unwrap_or(""),
                    about["name"].as_str().unwrap_or("")
                );
                writeln!(
                    out,
                    "{} {} {subject}: {} (x{})",
                    text("type"),
                    text("reason"),
                    text("message"),
                    event["count"]
                )
                .unwrap();
            }
        }
        ["waiting"] => {
            for ((name, key), waiting) in &bed.waiting {
                writeln!(out, "{name} {key}: {waiting}").unwrap();
            }
        }
        _ => panic!("no such command: {line}"),
    }
}

/// `resource/name` in the namespace default, `resource//name` without one; an asterisk at a name's end stands for the first that fits.
fn key(bed: &Bed, at: &str) -> Key {
    let (resource, namespace, name) = match at.split_once("//") {
        Some((resource, name)) => (resource, "", name),
        None => {
            let (resource, name) = at.rsplit_once('/').unwrap();
            (resource, "default", name)
        }
    };
    let Some(start) = name.strip_suffix('*') else {
        return Key::new(resource, namespace, name);
    };
    let mut found = bed
        .state
        .view()
        .list(resource, Some(namespace))
        .filter(|object| object.key.name.starts_with(start));
    found
        .next()
        .unwrap_or_else(|| panic!("nothing like {at}"))
        .key
        .clone()
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

fn ready(bed: &mut Bed, count: usize) {
    let keys = bed.pod_keys().into_iter().filter(|key| {
        let pod = bed.get(key).unwrap();
        pod["spec"]["nodeName"].is_string()
            && !is_ready(&pod)
            && pod["metadata"]["deletionTimestamp"].is_null()
    });
    keys.take(count)
        .collect::<Vec<_>>()
        .iter()
        .for_each(|key| bed.make_ready(key));
}

/// What reconcilers did, equal lines that follow each other told once.
fn told(bed: &mut Bed, out: &mut String) {
    let mut last: Option<(String, usize)> = None;
    let mut flush = |last: &Option<(String, usize)>| match last {
        Some((line, 1)) => writeln!(out, "{line}").unwrap(),
        Some((line, times)) => writeln!(out, "{line} (x{times})").unwrap(),
        None => {}
    };
    for line in std::mem::take(&mut bed.told) {
        match &mut last {
            Some((before, times)) if *before == line => *times += 1,
            _ => {
                flush(&last);
                last = Some((line, 1));
            }
        }
    }
    flush(&last);
}

fn show(bed: &Bed, out: &mut String) {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    for deployment in bed.list("apps/deployments") {
        let status = &deployment["status"];
        let conditions: Vec<String> = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|condition| {
                format!(
                    "{}={}({})",
                    condition["type"].as_str().unwrap(),
                    condition["status"].as_str().unwrap(),
                    condition["reason"].as_str().unwrap()
                )
            })
            .collect();
        writeln!(
            out,
            "deployment {} wants={} replicas={} updated={} ready={} available={} unavailable={} revision={} {}",
            deployment["metadata"]["name"].as_str().unwrap(),
            deployment["spec"]["replicas"],
            number(&status["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["readyReplicas"]),
            number(&status["availableReplicas"]),
            number(&status["unavailableReplicas"]),
            deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap_or("-"),
            conditions.join(" "),
        )
        .unwrap();
    }
    for set in bed.list("apps/replicasets") {
        let status = &set["status"];
        writeln!(
            out,
            "replicaset {} size={} replicas={} ready={} available={} terminating={} revision={}",
            set["metadata"]["name"].as_str().unwrap(),
            set["spec"]["replicas"],
            number(&status["replicas"]),
            number(&status["readyReplicas"]),
            number(&status["availableReplicas"]),
            number(&status["terminatingReplicas"]),
            set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
                .as_str()
                .unwrap_or("-"),
        )
        .unwrap();
    }
    let mut pods: BTreeMap<String, usize> = BTreeMap::new();
    for pod in bed.list("pods") {
        let owner = pod["metadata"]["ownerReferences"][0]["name"]
            .as_str()
            .map_or_else(
                || pod["metadata"]["name"].as_str().unwrap().to_owned(),
                |owner| format!("{owner}-*"),
            );
        let state = match (
            pod["metadata"]["deletionTimestamp"].is_string(),
            is_ready(&pod),
        ) {
            (true, _) => "terminating",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or("-");
        *pods
            .entry(format!("pod {owner} on {node}: {state}"))
            .or_insert(0) += 1;
    }
    for (line, count) in pods {
        writeln!(out, "{line} x{count}").unwrap();
    }
    for node in bed.list("nodes") {
        let taints: Vec<String> = node["spec"]["taints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|taint| {
                format!(
                    "{}:{}",
                    taint["key"].as_str().unwrap(),
                    taint["effect"].as_str().unwrap()
                )
            })
            .collect();
        let ready = node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready")
            .map_or("-", |ready| ready["status"].as_str().unwrap());
        writeln!(
            out,
            "node {} ready={ready} {}",
            node["metadata"]["name"].as_str().unwrap(),
            taints.join(" ")
        )
        .unwrap();
    }
    for slice in bed.list("discovery.k8s.io/endpointslices") {
        let endpoints: Vec<String> = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|endpoint| {
                format!(
                    "{}={}",
                    endpoint["addresses"][0].as_str().unwrap(),
                    endpoint["conditions"]["ready"]
                )
            })
            .collect();
        writeln!(
            out,
            "slice of {}: {}",
            slice["metadata"]["labels"]["kubernetes.io/service-name"]
                .as_str()
                .unwrap(),
            endpoints.join(" ")
        )
        .unwrap();
    }
}
