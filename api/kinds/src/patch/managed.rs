//! `metadata.managedFields`: who owns which field.
//!
//! Each write by create, update or a patch gives its manager the fields that it changed, and takes them from all others; an apply
//! owns what it names (`apply`). It must be asked after decoding and defaults and before the kind's hooks and admission, for what these
//! add is nobody's. Times are the caller's. A write that changes nothing leaves the entries as they were.
//! Source: k8s.io/apimachinery `managedfields`.

#[cfg(test)]
mod tests;

use super::fields::{FieldsError, Set};
use super::typed::Node;
use super::typed::compare::{self, Comparison};
use crate::schema::Schema;
use crate::schema::decode::empty;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Entries of operation Update that an object may have; past it the oldest are merged into one.
pub const MAX_UPDATE_MANAGERS: usize = 10;
/// As long as Kubernetes lets a manager's name be.
pub const MAX_MANAGER_BYTES: usize = 128;

/// The manager of a request: its `fieldManager`, or what its user agent begins with.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let mut name = String::new();
    for c in user_agent
        .split('/')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
    {
        if name.len() + c.len_utf8() > MAX_MANAGER_BYTES {
            break;
        }
        name.push(c);
    }
    name
}

/// Books a create (`old` is None), an update or a patch in `new`, which holds what the client sent, decoded and defaulted.
/// `subresource` is empty for the object itself; `now` is RFC 3339.
pub fn update(
    schema: &'static Schema,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    let stored = old.and_then(|old| old.pointer("/metadata/managedFields"));
    let sent = take(new).filter(|sent| subresource.is_empty() && Some(sent) != stored);
    let base = old.map_or_else(|| Cow::Owned(empty(schema)), Cow::Borrowed);
    let changes = compare::compare(Node::root(schema), &base, new)
        .without(&reset_fields(schema, subresource))
        .except(&stripped());
    if let (Some(stored), None, true) = (stored, &sent, changes.is_empty()) {
        new["metadata"]["managedFields"] = stored.clone();
        return;
    }
    let mut managers = match &sent {
        Some(Value::Array(entries)) if is_reset(entries) => Managers::default(),
        Some(entries) => match Managers::decode(Some(entries)) {
            Ok(managers) if !managers.entries.is_empty() => managers,
            _ => Managers::decode(stored).unwrap_or_default(),
        },
        None => Managers::decode(stored).unwrap_or_default(),
    };
    // An object that nobody owns a field of, and that is not new, is not tracked.
    let uid = old.and_then(|old| old["metadata"]["uid"].as_str());
    if !managers.entries.is_empty() || uid.is_none_or(str::is_empty) {
        let id = Id::update(schema, manager, subresource);
        managers.update(schema, &changes, &id, now);
        managers.cap();
    }
    managers.write(new);
}

/// Where nothing but times differs between the old object's entries and the new one's, the old ones stand: else a
/// repeated apply would be a change. To be asked when the new object is as it would be stored.
pub fn settle_times(old: &Value, new: &mut Value) {
    let (Value::Object(before), Value::Object(after)) = (old, &*new) else {
        return;
    };
    let same = |a: &Map<String, Value>, b: &Map<String, Value>, besides: &str| {
        let count = |map: &Map<String, Value>| map.keys().filter(|key| *key != besides).count();
        count(a) == count(b)
            && a.iter()
                .all(|(key, value)| key == besides || b.get(key) == Some(value))
    };
    let metadata =
        |map: &Map<String, Value>| map.get("metadata").and_then(Value::as_object).cloned();
    let (Some(metadata_before), Some(metadata_after)) = (metadata(before), metadata(after)) else {
        return;
    };
    let without_times = |metadata: &Map<String, Value>| {
        let entries = metadata.get("managedFields").and_then(Value::as_array);
        let mut entries = entries.cloned().unwrap_or_default();
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.shift_remove("time");
        }
        entries.sort_by_cached_key(Value::to_string);
        entries
    };
    if same(before, after, "metadata")
        && same(&metadata_before, &metadata_after, "managedFields")
        && without_times(&metadata_before) == without_times(&metadata_after)
    {
        *new = old.clone();
    }
}

/// Who owns what, decoded.
#[derive(Clone, Debug, Default)]
pub struct Managers {
    pub entries: BTreeMap<Id, Entry>,
}

/// What makes an entry another's: an applier is the same at every version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub manager: String,
    pub applies: bool,
    /// Empty for appliers.
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub set: Set,
    pub api_version: String,
    pub time: Option<String>,
}

impl Id {
    pub fn update(schema: &Schema, manager: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() {
            "unknown"
        } else {
            manager
        };
        Self {
            manager: manager.to_owned(),
            applies: false,
            api_version: api_version(schema),
            subresource: subresource.to_owned(),
        }
    }

    pub fn apply(manager: &str, subresource: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            applies: true,
            api_version: String::new(),
            subresource: subresource.to_owned(),
        }
    }
}

impl Managers {
    pub fn decode(entries: Option<&Value>) -> Result<Self, FieldsError> {
        let mut managers = Self::default();
        for entry in entries.and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| {
                entry
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let applies = match text("operation").as_str() {
                "Apply" => true,
                "Update" => false,
                _ => return Err(FieldsError::new("operation must be `Apply` or `Update`")),
            };
            if text("apiVersion").is_empty() {
                return Err(FieldsError::new("apiVersion must not be empty"));
            }
            if text("fieldsType") != "FieldsV1" {
                return Err(FieldsError::new(
                    "invalid fieldsType in managed fields entry",
                ));
            }
            let id = Id {
                manager: text("manager"),
                applies,
                api_version: if applies {
                    String::new()
                } else {
                    text("apiVersion")
                },
                subresource: text("subresource"),
            };
            let set = entry
                .get("fieldsV1")
                .map_or(Ok(Set::default()), Set::from_fields)?;
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            managers.entries.insert(
                id,
                Entry {
                    set,
                    api_version: text("apiVersion"),
                    time,
                },
            );
        }
        Ok(managers)
    }

    /// Puts the entries into an object, in Kubernetes' order; none leaves the field out.
    pub fn write(self, object: &mut Value) {
        let mut entries: Vec<(Id, Entry)> = self
            .entries
            .into_iter()
            .filter(|(_, entry)| !entry.set.is_empty())
            .collect();
        entries.sort_by(|(id, entry), (other_id, other)| {
            let key = |id: &Id, entry: &Entry| {
                (
                    !id.applies,
                    entry.time.clone().unwrap_or_default(),
                    id.manager.clone(),
                    entry.api_version.clone(),
                    id.subresource.clone(),
                )
            };
            key(id, entry).cmp(&key(other_id, other))
        });
        let encode = |(id, entry): (Id, Entry)| {
            let mut encoded = json!({"apiVersion": entry.api_version, "fieldsType": "FieldsV1", "fieldsV1": entry.set.to_fields()});
            let operation = if id.applies { "Apply" } else { "Update" };
            for (field, value) in [
                ("manager", id.manager.as_str()),
                ("operation", operation),
                ("subresource", &id.subresource),
            ] {
                if !value.is_empty() {
                    encoded[field] = json!(value);
                }
            }
            if let Some(time) = entry.time {
                encoded["time"] = json!(time);
            }
            encoded
        };
        if !entries.is_empty() {
            object["metadata"]["managedFields"] = entries.into_iter().map(encode).collect();
        }
    }

    /// Gives a manager what it changed, and takes it from the others.
    fn update(&mut self, schema: &Schema, changes: &Comparison, id: &Id, now: &str) {
        self.entries
            .retain(|_, entry| is_known(schema, &entry.api_version));
        let changed = changes.modified.union(&changes.added);
        for entry in self.entries.values_mut() {
            entry.set = entry.set.difference(&changed).difference(&changes.removed);
        }
        self.entries.retain(|_, entry| !entry.set.is_empty());
        if !changed.is_empty() {
            let before = self.entries.remove(id).map(|entry| entry.set);
            let set = changed.union(&before.unwrap_or_default());
            let entry = Entry {
                set,
                api_version: api_version(schema),
                time: Some(now.to_owned()),
            };
            self.entries.insert(id.clone(), entry);
        }
    }

    /// Too many updaters: the oldest become one, `ancient-changes`, by version.
    fn cap(&mut self) {
        let mut updaters: Vec<Id> = self
            .entries
            .keys()
            .filter(|id| !id.applies)
            .cloned()
            .collect();
        let mut left = updaters.len();
        updaters.sort_by_key(|id| {
            (
                self.entries
                    .get(id)
                    .and_then(|entry| entry.time.clone())
                    .unwrap_or_default(),
                id.clone(),
            )
        });
        let mut first: BTreeMap<String, Id> = BTreeMap::new();
        for id in updaters {
            if left <= MAX_UPDATE_MANAGERS {
                return;
            }
            let Some(older) = first.get(&id.api_version).cloned() else {
                first.insert(id.api_version.clone(), id);
                continue;
            };
            let bucket = Id {
                manager: "ancient-changes".into(),
                subresource: String::new(),
                ..id.clone()
            };
            let merged = self
                .entries
                .remove(&bucket)
                .or_else(|| self.entries.remove(&older));
            if let (Some(entry), Some(merged)) = (self.entries.remove(&id), merged) {
                self.entries.insert(
                    bucket,
                    Entry {
                        set: entry.set.union(&merged.set),
                        ..entry
                    },
                );
            }
            left -= 1;
        }
    }
}

/// Removes the entries from an object and gives them.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .shift_remove("managedFields")
        .filter(|entries| !entries.is_null())
}

/// `[]` or `[{}]`: a client's way to say that all ownership is to be forgotten.
fn is_reset(entries: &[Value]) -> bool {
    let blank = |entry: &Value| {
        entry
            .as_object()
            .is_some_and(|entry| entry.values().all(|value| value.is_null() || value == ""))
    };
    match entries {
        [] => true,
        [one] => blank(one),
        _ => false,
    }
}

pub(super) fn api_version(schema: &Schema) -> String {
    schema
        .gvk
        .as_ref()
        .map_or(String::new(), |(group, version, _)| {
            if group.is_empty() {
                version.clone()
            } else {
                format!("{group}/{version}")
            }
        })
}

/// Whether the kind is still served at this version: what was owned at another is forgotten.
pub(super) fn is_known(schema: &Schema, api_version: &str) -> bool {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    schema.gvk.as_ref().is_some_and(|(own, _, kind)| {
        own == group && Schema::of_kind(group, version, kind).is_some()
    })
}

/// What this path of writing can't change, and so does not own.
pub(super) fn reset_fields(schema: &Schema, subresource: &str) -> Set {
    match subresource {
        "" if schema.field("status").is_some() => Set::of(&[&["status"]]),
        "status" => Set::of(&[&["spec"]]),
        _ => Set::default(),
    }
}

/// Nobody owns an object's identity, nor what the server keeps in it.
pub(super) fn stripped() -> Set {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}
