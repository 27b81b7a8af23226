//! What differs between two versions of an object, in brief: for people who read history.

use serde_json::{Value, json};

/// What is shown of one change at most.
pub(super) const LINES_MAX: usize = 20;
/// Of every change something moves here, and it says nothing.
const LEFT_OUT: &[&str] = &["metadata.managedFields", "metadata.resourceVersion"];

/// `{"path": "spec.replicas", "from": 3, "to": 10}`, in the order of the newer version's fields; null where there was nothing.
pub(super) fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut lines = Vec::new();
    walk("", before, after, LINES_MAX, &mut lines);
    lines
}

/// The same, and all of it: for who decides by it.
pub(super) fn changed(before: &Value, after: &Value) -> Vec<Value> {
    let mut lines = Vec::new();
    walk("", before, after, usize::MAX, &mut lines);
    lines
}

/// An object that comes or goes as a side of `changed`, which names its fields one by one; nothing as the other.
pub(super) fn whole(object: &Value) -> Value {
    let mut fields = object.as_object().cloned().unwrap_or_default();
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in LEFT_OUT {
            metadata.shift_remove(field.trim_start_matches("metadata."));
        }
    }
    Value::Object(fields)
}

fn walk(path: &str, before: &Value, after: &Value, most: usize, lines: &mut Vec<Value>) {
    if before == after || LEFT_OUT.contains(&path) || lines.len() >= most {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                walk(
                    &below(path, key),
                    old.get(key).unwrap_or(&Value::Null),
                    value,
                    most,
                    lines,
                );
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                walk(&below(path, key), value, &Value::Null, most, lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let item = |list: &[Value]| list.get(index).cloned().unwrap_or(Value::Null);
                walk(
                    &format!("{path}[{index}]"),
                    &item(old),
                    &item(new),
                    most,
                    lines,
                );
            }
        }
        _ => lines.push(json!({"path": path, "from": before, "to": after})),
    }
}

/// A key with dots in it stands in brackets, so that the path can be read back.
fn below(path: &str, key: &str) -> String {
    match (path.is_empty(), key.contains('.')) {
        (_, true) => format!("{path}[{key:?}]"),
        (true, false) => key.to_owned(),
        (false, false) => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_path() {
        let rows = [
            (
                json!({"spec": {"replicas": 3}}),
                json!({"spec": {"replicas": 10}}),
                json!([{"path": "spec.replicas", "from": 3, "to": 10}]),
            ),
            (
                json!({"a": [1, 2]}),
                json!({"a": [1, 3, 4]}),
                json!([{"path": "a[1]", "from": 2, "to": 3}, {"path": "a[2]", "from": null, "to": 4}]),
            ),
            (
                json!({"a": {"x.y/z": 1}}),
                json!({"a": {}}),
                json!([{"path": "a[\"x.y/z\"]", "from": 1, "to": null}]),
            ),
            (
                json!({"metadata": {"resourceVersion": "1", "managedFields": [1]}}),
                json!({"metadata": {"resourceVersion": "2"}}),
                json!([]),
            ),
            (json!({"a": 1}), json!({"a": 1}), json!([])),
        ];
        for (before, after, expected) in rows {
            assert_eq!(Value::Array(diff(&before, &after)), expected);
        }
        let many: serde_json::Map<String, Value> = (0..100)
            .map(|index| (format!("k{index}"), json!(index)))
            .collect();
        let many = Value::Object(many);
        assert_eq!(diff(&json!({}), &many).len(), LINES_MAX);
        assert_eq!(changed(&json!({}), &many).len(), 100);
    }

    #[test]
    fn what_comes_or_goes_is_shown_whole() {
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [1], "resourceVersion": "7"}, "data": {"x": "1"}});
        let rows = [
            ("kind", json!("ConfigMap")),
            ("metadata", json!({"name": "a"})),
            ("data", json!({"x": "1"})),
        ];
        let comes: Vec<Value> = rows
            .iter()
            .map(|(path, value)| json!({"path": path, "from": null, "to": value}))
            .collect();
        assert_eq!(changed(&whole(&Value::Null), &whole(&object)), comes);
        let goes: Vec<Value> = rows
            .iter()
            .map(|(path, value)| json!({"path": path, "from": value, "to": null}))
            .collect();
        assert_eq!(changed(&whole(&object), &whole(&Value::Null)), goes);
    }
}
