//! What is not well with the nodes and pods of a cluster whose test failed: a wait that came to its end says that a pod is not there, and
//! seldom why. A full disk of the machine that the tests run on is the cause most often.

use serde_json::Value;
use std::fmt::Write;

/// Nothing where all is well. Both are `kubectl get -o json`'s lists.
pub fn say(nodes: &Value, pods: &Value) -> String {
    let mut said = String::new();
    for (list, why) in [(nodes, node as fn(&Value) -> Vec<String>), (pods, pod)] {
        for object in list["items"].as_array().into_iter().flatten() {
            let names = ["namespace", "name"].map(|part| object["metadata"][part].as_str());
            let name: Vec<_> = names.into_iter().flatten().collect();
            for why in why(object) {
                let _ = writeln!(said, "{}: {why}", name.join("/"));
            }
        }
    }
    said
}

/// Conditions that are not as on a node that takes pods: Ready is True there, and all else False.
fn node(node: &Value) -> Vec<String> {
    let conditions = node["status"]["conditions"].as_array();
    let unwell = conditions.into_iter().flatten().filter(|condition| {
        let well = if condition["type"] == "Ready" {
            "True"
        } else {
            "False"
        };
        condition["status"] != well
    });
    unwell.map(is).collect()
}

/// Why it has no node, was ended, or what its containers wait for.
fn pod(pod: &Value) -> Vec<String> {
    let status = &pod["status"];
    let mut why = Vec::new();
    if !status["reason"].is_null() {
        why.push(format!("{}{}", text(&status["phase"]), because(status)));
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    why.extend(
        conditions
            .filter(|condition| {
                condition["type"] == "PodScheduled" && condition["status"] != "True"
            })
            .map(is),
    );
    for containers in ["initContainerStatuses", "containerStatuses"] {
        for container in status[containers].as_array().into_iter().flatten() {
            let waiting = &container["state"]["waiting"];
            if !waiting.is_null() {
                let name = text(&container["name"]);
                why.push(format!("{name} waits{}", because(waiting)));
            }
        }
    }
    why
}

fn is(condition: &Value) -> String {
    let (kind, status) = (text(&condition["type"]), text(&condition["status"]));
    format!("{kind}={status}{}", because(condition))
}

fn because(of: &Value) -> String {
    let parts = ["reason", "message"].map(|part| text(&of[part]));
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match &parts[..] {
        [] => String::new(),
        parts => format!(" ({})", parts.join(": ")),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn what_is_not_well_is_said_and_nothing_else() {
    use serde_json::json;
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "m"});
    let node = |pressure: &str, ready: &str| {
        let conditions = [
            condition("DiskPressure", pressure, "Disk"),
            condition("Ready", ready, "Kubelet"),
        ];
        json!({"items": [{"metadata": {"name": "n"}, "status": {"conditions": conditions}}]})
    };
    let pod = |status: Value| json!({"items": [{"metadata": {"namespace": "d", "name": "p"}, "status": status}]});
    let well = json!({"phase": "Running", "conditions": [condition("PodScheduled", "True", ""), condition("Ready", "False", "")],
        "containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    let nowhere = json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable")]});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "full"});
    let waits = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {}}}],
        "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no image"}}}]});
    for (nodes, pods, want) in [
        (node("False", "True"), pod(well), ""),
        (
            node("True", "True"),
            Value::Null,
            "n: DiskPressure=True (Disk: m)\n",
        ),
        (
            node("False", "Unknown"),
            Value::Null,
            "n: Ready=Unknown (Kubelet: m)\n",
        ),
        (
            Value::Null,
            pod(nowhere),
            "d/p: PodScheduled=False (Unschedulable: m)\n",
        ),
        (Value::Null, pod(evicted), "d/p: Failed (Evicted: full)\n"),
        (
            Value::Null,
            pod(waits),
            "d/p: i waits\nd/p: c waits (ErrImagePull: no image)\n",
        ),
    ] {
        assert_eq!(say(&nodes, &pods), want);
    }
}
