//! Event objects (core/v1), as `kubectl describe` lists them.
//!
//! One object for each (about whom, reason, message): its name derives from these, and a repetition counts it up. They ride in the
//! proposal that they tell of, and expect nothing, so that they can never keep it from being accepted. `event_retention` takes them away.

use crate::World;
use crate::change::put;
use crate::world::{Kind, Thing, resource};
use eventstore::{Change, Digest, Key, Text, Time};
use serde_json::{Value, json};

/// How many acts of one decision are told one by one; more are told together.
pub const MOST_SINGLE: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// What is told: `component` is who tells it.
#[derive(Clone, Debug)]
pub struct Tale<'a> {
    pub component: &'a str,
    pub severity: Severity,
    pub reason: &'a str,
    pub message: String,
}

/// The change that tells it; None where no events may be made: its namespace is being deleted.
pub fn tell(world: &World, about: &Thing, tale: &Tale, now: Time) -> Option<Change> {
    let subject = &about.object.key;
    let namespace: Text = if subject.namespace.is_empty() {
        "default".into()
    } else {
        subject.namespace.clone()
    };
    if !world.namespace_lives(&namespace) {
        return None;
    }
    let digest = Digest::of(&[
        about.object.uid().as_bytes(),
        tale.reason.as_bytes(),
        tale.message.as_bytes(),
    ]);
    let number = u64::from_be_bytes(digest.0[..8].try_into().expect("eight of 32 bytes"));
    let name = format!("{}.{number:016x}", subject.name);
    let key = Key::new(resource::EVENTS, namespace.clone(), name.clone());
    let said = now.to_string();
    let before = world
        .thing(&key)
        .filter(|thing| matches!(thing.kind, Kind::Event(_)));
    let object = match before {
        Some(before) => {
            let mut object = before.object.to_value();
            object["count"] = json!(object["count"].as_i64().unwrap_or(0) + 1);
            object["lastTimestamp"] = json!(said);
            object
        }
        None => json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": { "name": name, "namespace": &*namespace },
            "involvedObject": involved(about),
            "reason": tale.reason, "message": tale.message,
            "source": { "component": tale.component },
            "firstTimestamp": said, "lastTimestamp": said, "count": 1,
            "type": match tale.severity { Severity::Normal => "Normal", Severity::Warning => "Warning" },
            "eventTime": Value::Null,
            "reportingComponent": tale.component, "reportingInstance": "",
        }),
    };
    Some(put(&key, &object))
}

fn involved(about: &Thing) -> Value {
    let key = &about.object.key;
    let mut involved = json!({ "kind": &*about.meta.kind });
    if !key.namespace.is_empty() {
        involved["namespace"] = json!(&*key.namespace);
    }
    involved["name"] = json!(&*key.name);
    involved["uid"] = json!(about.object.uid().to_string());
    involved["apiVersion"] = json!(&*about.meta.api_version);
    involved["resourceVersion"] = json!(about.object.revision().to_string());
    involved
}
