//! A pod's row in `kubectl get pods`: one word for the state of all its containers (Kubernetes: `printPod`).

use crate::resources::checks::{items, text};
use crate::table::age::{human, millis};
use crate::table::{age, name, or_none};
use serde_json::{Value, json};

pub fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let counted = Counted::of(spec, status);
    let address = items(&status["podIPs"])
        .first()
        .map_or(text(&status["podIP"]), |ip| text(&ip["ip"]));
    vec![
        name(object),
        json!(format!("{}/{}", counted.ready, counted.total)),
        json!(reason(object)),
        json!(counted.restarts(now_ms)),
        age(object, now_ms),
        or_none(address),
        or_none(text(&spec["nodeName"])),
        or_none(text(&status["nominatedNodeName"])),
        json!(gates(spec, status)),
    ]
}

/// Containers that count: the ordinary ones and sidecars; restarts, while it initializes, are the init containers'.
#[derive(Default)]
struct Counted {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart_ms: Option<i64>,
}

impl Counted {
    fn of(spec: &Value, status: &Value) -> Self {
        let sidecars: Vec<&str> = items(&spec["initContainers"])
            .iter()
            .filter(|c| c["restartPolicy"] == "Always")
            .map(|c| text(&c["name"]))
            .collect();
        let is_sidecar = |container: &&Value| sidecars.contains(&text(&container["name"]));
        let mut counted = Self {
            total: items(&spec["containers"]).len() + sidecars.len(),
            ..Self::default()
        };
        let init = items(&status["initContainerStatuses"]);
        counted.ready += init
            .iter()
            .filter(is_sidecar)
            .filter(|container| is_started(container) && container["ready"] == true)
            .count();
        if initializing(spec, status).is_some() {
            init.iter()
                .for_each(|container| counted.count_restarts(container));
        } else {
            let own = items(&status["containerStatuses"]);
            counted.ready += own
                .iter()
                .filter(|container| {
                    container["ready"] == true && !container["state"]["running"].is_null()
                })
                .count();
            init.iter()
                .filter(is_sidecar)
                .chain(own)
                .for_each(|container| counted.count_restarts(container));
        }
        counted
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or_default();
        let ended = container["lastState"]["terminated"]["finishedAt"]
            .as_str()
            .and_then(millis);
        self.last_restart_ms = self.last_restart_ms.max(ended);
    }

    /// `3 (5m ago)`
    fn restarts(&self, now_ms: i64) -> String {
        match self.last_restart_ms {
            Some(last) if self.restarts > 0 => {
                format!("{} ({} ago)", self.restarts, human(now_ms - last))
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn is_started(container: &Value) -> bool {
    container["started"] == true
}

/// The status word.
fn reason(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let pod_reason = text(&status["reason"]);
    let mut word = if pod_reason.is_empty() {
        text(&status["phase"]).to_owned()
    } else {
        pod_reason.to_owned()
    };
    if items(&status["conditions"]).iter().any(|condition| {
        condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
    }) {
        word = "SchedulingGated".to_owned();
    }
    match initializing(spec, status) {
        Some(init) => word = init,
        None => word = running(status, word),
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        if pod_reason == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !matches!(text(&status["phase"]), "Failed" | "Succeeded") {
            return "Terminating".to_owned();
        }
    }
    word
}

/// `Init:1/2`, `Init:CrashLoopBackOff` … while an init container is not done; None when all are.
fn initializing(spec: &Value, status: &Value) -> Option<String> {
    let declared = items(&spec["initContainers"]);
    for (index, container) in items(&status["initContainerStatuses"]).iter().enumerate() {
        let state = &container["state"];
        let (waiting, terminated) = (&state["waiting"], &state["terminated"]);
        if terminated["exitCode"] == 0 {
            continue;
        }
        let sidecar = declared
            .iter()
            .any(|c| c["name"] == container["name"] && c["restartPolicy"] == "Always");
        if sidecar && is_started(container) {
            continue;
        }
        if !terminated.is_null() {
            return Some(format!("Init:{}", how_it_ended(terminated)));
        }
        let why = text(&waiting["reason"]);
        if !why.is_empty() && why != "PodInitializing" {
            return Some(format!("Init:{why}"));
        }
        return Some(format!("Init:{index}/{}", declared.len()));
    }
    None
}

/// The last container with something to say decides; a pod of which one runs on and one is done is `Running`.
fn running(status: &Value, mut word: String) -> String {
    let mut some_run = false;
    for container in items(&status["containerStatuses"]).iter().rev() {
        let state = &container["state"];
        let why = text(&state["waiting"]["reason"]);
        if !why.is_empty() {
            word = why.to_owned();
        } else if !state["terminated"].is_null() {
            word = how_it_ended(&state["terminated"]);
        } else if container["ready"] == true && !state["running"].is_null() {
            some_run = true;
        }
    }
    if word == "Completed" && some_run {
        let ready = items(&status["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        word = if ready { "Running" } else { "NotReady" }.to_owned();
    }
    word
}

fn how_it_ended(terminated: &Value) -> String {
    let number = |key: &str| terminated[key].as_i64().unwrap_or_default();
    match (text(&terminated["reason"]), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// `1/2`; `<none>` where there are none.
fn gates(spec: &Value, status: &Value) -> String {
    let gates = items(&spec["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| {
            items(&status["conditions"])
                .iter()
                .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
        })
        .count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (what, spec, status, being deleted, [ready, status, restarts])
    #[test]
    fn states() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let up = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}}});
        let rows = [
            (
                "new",
                &two,
                json!({"phase": "Pending"}),
                false,
                ["0/2", "Pending", "0"],
            ),
            (
                "up",
                &two,
                json!({"phase": "Running", "containerStatuses": [up("a"), up("b")]}),
                false,
                ["2/2", "Running", "0"],
            ),
            (
                "crashing",
                &two,
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                     "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:00:10Z"}}}, up("b")]}),
                false,
                ["1/2", "CrashLoopBackOff", "3 (40s ago)"],
            ),
            (
                "one done",
                &two,
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                    {"name": "a", "ready": false, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, up("b")]}),
                false,
                ["1/2", "Running", "0"],
            ),
            (
                "killed",
                &two,
                json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"signal": 9, "exitCode": 137}}}]}),
                false,
                ["0/2", "Signal:9", "0"],
            ),
            (
                "evicted",
                &two,
                json!({"phase": "Failed", "reason": "Evicted"}),
                false,
                ["0/2", "Evicted", "0"],
            ),
            (
                "going",
                &two,
                json!({"phase": "Running", "containerStatuses": [up("a"), up("b")]}),
                true,
                ["2/2", "Terminating", "0"],
            ),
            (
                "done, going",
                &two,
                json!({"phase": "Succeeded"}),
                true,
                ["0/2", "Succeeded", "0"],
            ),
            (
                "lost",
                &two,
                json!({"phase": "Running", "reason": "NodeLost"}),
                true,
                ["0/2", "Unknown", "0"],
            ),
            (
                "gated",
                &two,
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                false,
                ["0/2", "SchedulingGated", "0"],
            ),
            (
                "first init",
                &init,
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"running": {}}}]}),
                false,
                ["0/2", "Init:0/2", "2"],
            ),
            (
                "init fails",
                &init,
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}),
                false,
                ["0/2", "Init:Error", "0"],
            ),
            (
                "sidecar runs",
                &init,
                json!({"phase": "Running", "containerStatuses": [up("a")], "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}]}),
                false,
                ["2/2", "Running", "1"],
            ),
        ];
        for (what, spec, status, deleted, expected) in rows {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
            }
            assert_eq!(json!(cells(&pod, 50_000)[1..4]), json!(expected), "{what}");
        }
    }
}
