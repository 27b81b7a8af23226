//! Which paths a value has, and which named fields lie on the way to them.

use super::{Node, by_element};
use crate::patch::fields::{Element, Set};
use crate::schema::ListType;
use serde_json::{Map, Value};

/// Every leaf and every item of a value.
pub fn field_set(node: Node, value: &Value) -> Set {
    let mut set = Set::default();
    gather(node, value, &mut set);
    set
}

/// Whether the place itself is a leaf.
fn gather(node: Node, value: &Value, set: &mut Set) -> bool {
    match (node.deduced(Some(value)), value) {
        (Node::Scalar(_), _)
        | (
            Node::Struct { atomic: true, .. }
            | Node::Map { atomic: true, .. }
            | Node::List {
                list: ListType::Atomic,
                ..
            },
            _,
        ) => true,
        (node @ (Node::Struct { .. } | Node::Map { .. } | Node::Free), Value::Object(map)) => {
            for (key, value) in map {
                let Some((child, declared)) = node.child(key) else {
                    continue;
                };
                let mut below = Set::default();
                let leaf = gather(child, value, &mut below);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.put(Element::field(key), leaf || empty || !declared, below);
            }
            false
        }
        (node @ Node::List { element, list }, Value::Array(items)) => {
            for (key, same) in by_element(element, list, items) {
                let mut below = Set::default();
                // An item that comes twice is owned whole, not in its parts.
                if let [one] = same.as_slice() {
                    gather(node.item(), one, &mut below);
                }
                set.put(key, true, below);
            }
            false
        }
        _ => false,
    }
}

/// The set, with every field that the schema names on the way to a member made a member itself.
pub fn with_named_parents(set: &Set, node: Node) -> Set {
    let mut all = set.clone();
    for (element, below) in set.children() {
        let (child, named) = match (element, node) {
            (Element::Field(name), node) => node.child(name).unwrap_or((Node::Free, false)),
            (_, node) => (node.item(), false),
        };
        all.put(element.clone(), named, with_named_parents(below, child));
    }
    all
}
