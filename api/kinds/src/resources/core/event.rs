//! Event (`v1`): something happened to an object. Recorders repeat themselves by counting up the same event.
//! `events.k8s.io/v1` shows the same objects in other words; what a writer through that group must fill in is checked here too,
//! for an event with an `eventTime` comes from such a writer.

use crate::error::FieldError;
use crate::kind::{Column, Hooks, Kind, Nature};
use crate::resources::checks::{Findings, text};
use crate::resources::names;
use crate::table::{NAME, column};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    nature: Nature::Observed,
    schema: "io.k8s.api.core.v1.Event",
    columns: COLUMNS,
    selectable: SELECTABLE,
    put_creates: true,
    hooks: Hooks {
        validate,
        validate_update,
        cells,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const COLUMNS: &[Column] = &[
    column(
        "Last Seen",
        "string",
        0,
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    column(
        "Type",
        "string",
        0,
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    column(
        "Reason",
        "string",
        0,
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    column(
        "Object",
        "string",
        0,
        "The object that this event is about.",
    ),
    column(
        "Subobject",
        "string",
        1,
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    column(
        "Source",
        "string",
        1,
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    column(
        "Message",
        "string",
        0,
        "A human-readable description of the status of this operation.",
    ),
    column(
        "First Seen",
        "string",
        1,
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    column(
        "Count",
        "string",
        1,
        "The number of times this event has occurred.",
    ),
    Column {
        priority: 1,
        ..NAME
    },
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let since = |time: &Value| crate::table::age::since(time, now_ms);
    let (event_time, series) = (&object["eventTime"], &object["series"]);
    let first = if object["firstTimestamp"].is_null() {
        since(event_time)
    } else {
        since(&object["firstTimestamp"])
    };
    let last = if !series.is_null() {
        since(&series["lastObservedTime"])
    } else if object["lastTimestamp"].is_null() {
        first.clone()
    } else {
        since(&object["lastTimestamp"])
    };
    let count = match (series["count"].as_i64(), object["count"].as_i64()) {
        (Some(count), _) | (None, Some(count)) if count != 0 => count,
        _ => 1,
    };
    let about = &object["involvedObject"];
    let target = match text(&about["name"]) {
        "" => text(&about["kind"]).to_lowercase(),
        name => format!("{}/{name}", text(&about["kind"]).to_lowercase()),
    };
    vec![
        json!(last),
        json!(text(&object["type"])),
        json!(text(&object["reason"])),
        json!(target),
        json!(text(&about["fieldPath"])),
        json!(source(object)),
        json!(text(&object["message"]).trim()),
        json!(first),
        json!(count),
        crate::table::name(object),
    ]
}

/// `kubelet, node-1`
fn source(object: &Value) -> String {
    let component = match text(&object["source"]["component"]) {
        "" => text(&object["reportingComponent"]),
        component => component,
    };
    let host = match text(&object["source"]["host"]) {
        "" => text(&object["reportingInstance"]),
        host => host,
    };
    if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    }
}

fn field(object: &Value, path: &str) -> Option<String> {
    let value = match path {
        "source" => match text(&object["source"]["component"]) {
            "" => text(&object["reportingComponent"]),
            component => component,
        },
        "reason" | "reportingComponent" | "type" => text(&object[path]),
        _ => text(&object["involvedObject"][path.strip_prefix("involvedObject.")?]),
    };
    Some(value.to_owned())
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    let about = text(&object["involvedObject"]["namespace"]);
    let own = text(&object["metadata"]["namespace"]);
    // What has no namespace is told of in `default`, or in `kube-system` by nodes' agents.
    let fits = if about.is_empty() {
        matches!(own, "default" | "kube-system" | "")
    } else {
        about == own
    };
    if !fits {
        found.invalid(
            "involvedObject.namespace",
            about,
            "does not match event.namespace",
        );
    }
    if !object["eventTime"].is_null() {
        let controller = text(&object["reportingComponent"]);
        match controller {
            "" => found.required("reportingController", ""),
            _ => found.all(
                "reportingController",
                controller,
                names::qualified_name(controller),
            ),
        }
        match text(&object["reportingInstance"]) {
            "" => found.required("reportingInstance", ""),
            instance if instance.len() > 128 => {
                found.invalid("reportingInstance", "", "can have at most 128 characters")
            }
            _ => {}
        }
        for (key, max) in [("action", 128), ("reason", 128), ("message", 1024)] {
            let value = text(&object[key]);
            if value.is_empty() && key != "message" {
                found.required(key, "");
            }
            if value.len() > max {
                found.invalid(key, "", format!("can have at most {max} characters"));
            }
        }
    }
    found.0
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    if !old["eventTime"].is_null() {
        for key in [
            "involvedObject",
            "reason",
            "action",
            "eventTime",
            "reportingComponent",
            "reportingInstance",
            "related",
            "type",
        ] {
            found.immutable(key, &old[key], &new[key]);
        }
    }
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::messages;

    #[test]
    fn cells_of_both_kinds_of_writer() {
        let rows = [
            (
                json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "reason": "R", "type": "Normal",
                       "message": " m\n", "source": {"component": "kubelet", "host": "n"}, "count": 3,
                       "firstTimestamp": "1970-01-01T00:00:10Z", "lastTimestamp": "1970-01-01T00:00:30Z"}),
                json!([
                    "20s",
                    "Normal",
                    "R",
                    "pod/p",
                    "spec",
                    "kubelet, n",
                    "m",
                    "40s",
                    3,
                    "e"
                ]),
            ),
            (
                json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Node", "name": "n"}, "reason": "R", "type": "Warning",
                       "eventTime": "1970-01-01T00:00:10.000000Z", "reportingComponent": "a/b", "reportingInstance": "x",
                       "series": {"count": 2, "lastObservedTime": "1970-01-01T00:00:40.000000Z"}}),
                json!([
                    "10s", "Warning", "R", "node/n", "", "a/b, x", "", "40s", 2, "e"
                ]),
            ),
        ];
        for (event, expected) in rows {
            assert_eq!(json!(cells(&event, 50_000)), expected);
        }
    }

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            (
                "same namespace",
                json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}}),
                &[],
            ),
            (
                "another",
                json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
                &["involvedObject.namespace does not"],
            ),
            (
                "of a node",
                json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}),
                &[],
            ),
            (
                "of a new writer",
                json!({"metadata": {"namespace": "default"}, "eventTime": "x", "reason": "R"}),
                &["reportingController ", "reportingInstance ", "action "],
            ),
        ];
        for (what, event, expected) in rows {
            messages(what, validate(event), expected);
        }
    }
}
