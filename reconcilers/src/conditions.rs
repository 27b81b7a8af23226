//! `status.conditions`: the list that every kind's status has.

use eventstore::Time;
use serde_json::{Map, Value, json};

/// A condition as a decision wants it; the times come from when it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub name: &'static str,
    pub status: &'static str,
    pub reason: String,
    pub message: String,
}

impl Condition {
    pub fn new(
        name: &'static str,
        status: &'static str,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The condition of a type.
pub fn find<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == name)
}

/// Puts a condition in place of the one of its type. `lastTransitionTime` is now if the status changed, else it stays; `more` is laid
/// over it. Whether anything changed.
pub fn set(status: &mut Value, wanted: &Condition, more: &Value, now: Time) -> bool {
    let before = find(status, wanted.name).cloned();
    let mut after = Map::new();
    after.insert("type".into(), json!(wanted.name));
    after.insert("status".into(), json!(wanted.status));
    if let Some(more) = more.as_object() {
        after.extend(more.clone());
    }
    let transition = match &before {
        Some(before) if before["status"] == wanted.status => {
            before.get("lastTransitionTime").cloned()
        }
        _ => None,
    };
    after.insert(
        "lastTransitionTime".into(),
        transition
            .filter(|time| time.is_string())
            .unwrap_or_else(|| json!(now.to_string())),
    );
    for (field, text) in [("reason", &wanted.reason), ("message", &wanted.message)] {
        if !text.is_empty() {
            after.insert(field.into(), json!(text));
        }
    }
    let after = Value::Object(after);
    if before.as_ref() == Some(&after) {
        return false;
    }
    put(status, wanted.name, after);
    true
}

/// Replaces a condition where it stands, or adds it at the end.
pub fn put(status: &mut Value, name: &str, condition: Value) {
    if !status.is_object() {
        *status = json!({});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let list = status["conditions"]
        .as_array_mut()
        .expect("it was made a list just now");
    match list.iter_mut().find(|condition| condition["type"] == name) {
        Some(place) => *place = condition,
        None => list.push(condition),
    }
}

/// Takes a condition away; a list that becomes empty goes too.
pub fn remove(status: &mut Value, name: &str) -> bool {
    let Some(list) = status.get_mut("conditions").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|condition| condition["type"] != name);
    let removed = list.len() < before;
    if list.is_empty()
        && let Some(status) = status.as_object_mut()
    {
        status.shift_remove("conditions");
    }
    removed
}
