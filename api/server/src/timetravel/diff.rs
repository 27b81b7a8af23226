//! What differs between two versions of an object, in brief: for people who read history.

use serde_json::{Value, json};

/// What is shown of one change at most.
pub(super) const LINES_MAX: usize = 20;
/// Of every change something moves here, and it says nothing.
const LEFT_OUT: &[&str] = &["metadata.managedFields", "metadata.resourceVersion"];

/// `{"path": "spec.replicas", "from": 3, "to": 10}`, in the order of the newer version's fields; null where there was nothing.
pub(super) fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut lines = Vec::new();
    walk("", before, after, &mut lines);
    lines.truncate(LINES_MAX);
    lines
}

fn walk(path: &str, before: &Value, after: &Value, lines: &mut Vec<Value>) {
    if before == after || LEFT_OUT.contains(&path) || lines.len() >= LINES_MAX {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                walk(
                    &below(path, key),
                    old.get(key).unwrap_or(&Value::Null),
                    value,
                    lines,
                );
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                walk(&below(path, key), value, &Value::Null, lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let item = |list: &[Value]| list.get(index).cloned().unwrap_or(Value::Null);
                walk(&format!("{path}[{index}]"), &item(old), &item(new), lines);
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
        assert_eq!(diff(&json!({}), &Value::Object(many)).len(), LINES_MAX);
    }
}
