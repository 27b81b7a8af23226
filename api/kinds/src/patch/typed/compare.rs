//! How two values differ, as paths removed, modified and added. What is equal is not descended into.

use super::{Node, by_element, entries, items, keys};
use crate::patch::fields::{Element, Set};
use crate::schema::{ListType, Type};
use serde_json::{Map, Value};

pub fn compare(node: Node, left: &Value, right: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    differ(
        node,
        Some(left),
        Some(right),
        &mut Vec::new(),
        &mut comparison,
    );
    comparison
}

/// How two values differ. No path is in more than one of these.
#[derive(Debug, Default)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without these very paths.
    pub fn except(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.difference(fields),
            modified: self.modified.difference(fields),
            added: self.added.difference(fields),
        }
    }

    /// Without what lies in these paths or below.
    pub fn without(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

fn differ(
    node: Node,
    left: Option<&Value>,
    right: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    if left == right {
        return;
    }
    let leaf = match (node.deduced(left), node.deduced(right)) {
        (Node::List { element, list }, Node::List { .. }) if *list != ListType::Atomic => {
            let (left, right) = (items(left), items(right));
            if !(left.is_empty() && right.is_empty()) {
                differ_list(element, list, left, right, path, out);
            }
            left.is_empty() && right.is_empty()
        }
        (
            node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }),
            Node::Struct { .. } | Node::Map { .. },
        ) => {
            let (left, right) = (entries(left), entries(right));
            let count = |map: Option<&Map<String, Value>>| map.map_or(0, Map::len);
            for key in keys(left, right) {
                if let Some((child, _)) = node.child(key) {
                    path.push(Element::field(key));
                    differ(
                        child,
                        left.and_then(|map| map.get(key)),
                        right.and_then(|map| map.get(key)),
                        path,
                        out,
                    );
                    path.pop();
                }
            }
            count(left) + count(right) == 0
        }
        _ => true,
    };
    match (left, right) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        _ if leaf => out.modified.insert(path),
        _ => {}
    }
}

fn differ_list(
    element: &'static Type,
    list: &'static ListType,
    left: &[Value],
    right: &[Value],
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let (left, right) = (
        by_element(element, list, left),
        by_element(element, list, right),
    );
    let node = Node::List { element, list }.item();
    let left_keys = left.iter().map(|(key, _)| key);
    let new_keys = right
        .iter()
        .map(|(key, _)| key)
        .filter(|key| !left.iter().any(|(other, _)| other == *key));
    for key in left_keys.chain(new_keys) {
        let found = |list: &'_ Vec<(Element, Vec<Value>)>| {
            list.iter()
                .find(|(other, _)| other == key)
                .map(|(_, items)| items.clone())
                .unwrap_or_default()
        };
        let (old, new) = (found(&left), found(&right));
        path.push(key.clone());
        match (old.as_slice(), new.as_slice()) {
            ([_, _, ..], [_, _, ..]) if old != new => out.modified.insert(path),
            ([_, _, ..], [_, _, ..]) => {}
            // An item that came twice has no parts of its own: they come or go with the repetition.
            ([_, _, ..], new) => {
                if let Some(new) = new.first() {
                    differ(node, None, Some(new), path, out);
                }
                out.removed.insert(path);
            }
            (old, [_, _, ..]) => {
                if let Some(old) = old.first() {
                    differ(node, old.into(), None, path, out);
                }
                out.added.insert(path);
            }
            (old, new) => differ(node, old.first(), new.first(), path, out),
        }
        path.pop();
    }
}
