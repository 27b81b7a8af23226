//! Whether an applied configuration fits the schema: no field unknown, no item twice, each scalar of its type.

use super::{Kind, Node, item_element};
use crate::patch::fields::{Element, path_text};
use crate::patch::go_value;
use crate::schema::ListType;
use serde_json::Value;

/// What in an applied configuration does not fit the schema, in the server's words; None where all does.
pub fn misfit(node: Node, value: &Value) -> Option<String> {
    let mut errors = Vec::new();
    check(node, value, &mut Vec::new(), &mut errors);
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!(
            "errors:\n{}",
            several
                .iter()
                .map(|error| format!("  {error}"))
                .collect::<Vec<_>>()
                .join("\n")
        )),
    }
}

fn check(node: Node, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<String>) {
    let mut wrong = |path: &[Element], text: String| {
        errors.push(if path.is_empty() {
            text
        } else {
            format!("{}: {text}", path_text(path))
        })
    };
    match (node.deduced(Some(value)), value) {
        (_, Value::Null) => {}
        (Node::Scalar(kind), value) => {
            let fits = match kind {
                Kind::String => value.is_string(),
                Kind::Number => value.is_number(),
                Kind::Bool => value.is_boolean(),
                Kind::Any => !value.is_array() && !value.is_object(),
            };
            if !fits {
                wrong(path, scalar_error(kind, value));
            }
        }
        (node @ (Node::Struct { .. } | Node::Map { .. }), Value::Object(map)) => {
            for (key, value) in map {
                path.push(Element::field(key));
                match node.child(key) {
                    Some((child, _)) => check(child, value, path, errors),
                    None => {
                        errors.push(format!("{}: field not declared in schema", path_text(path)))
                    }
                }
                path.pop();
            }
        }
        (Node::Struct { .. } | Node::Map { .. }, other) => {
            wrong(path, format!("expected map, got &{{{}}}", go_value(other)))
        }
        (node @ Node::List { element, list }, Value::Array(items)) => {
            let mut seen = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let key = if *list == ListType::Atomic {
                    Element::Index(index as i64)
                } else {
                    match item_element(element, list, item) {
                        Ok(key) => key,
                        Err(error) => {
                            return errors
                                .push(format!("{}: element {index}: {error}", path_text(path)));
                        }
                    }
                };
                if seen.contains(&key) {
                    errors.push(format!(
                        "{}: duplicate entries for key {key}",
                        path_text(path)
                    ));
                }
                path.push(key.clone());
                seen.push(key);
                check(node.item(), item, path, errors);
                path.pop();
            }
        }
        (Node::List { .. }, other) => {
            wrong(path, format!("expected list, got &{{{}}}", go_value(other)))
        }
        (Node::Free, _) => {}
    }
}

fn scalar_error(kind: Kind, value: &Value) -> String {
    let go = match value {
        Value::String(text) => crate::error::go_quote(text),
        Value::Array(_) => "[]interface {}{…}".into(),
        Value::Object(_) => "map[string]interface {}{…}".into(),
        other => other.to_string(),
    };
    let type_name = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    match kind {
        Kind::String => format!("expected string, got &value.valueUnstructured{{Value:{go}}}"),
        Kind::Number => format!("expected numeric (int or float), got {type_name}"),
        Kind::Bool => format!("expected boolean, got &{{{}}}", go_value(value)),
        Kind::Any => format!("expected any scalar, got &{{{}}}", go_value(value)),
    }
}
