//! One value merged into another, and paths taken out of a value. Both keep what they do not know of.

use super::{Node, entries, item_element, items, keys};
use crate::patch::fields::{Element, Set};
use crate::schema::{ListType, Type};
use serde_json::{Map, Value};

/// The right merged into the left: nothing goes, and what both have is the right's.
pub fn merge(node: Node, left: &Value, right: &Value) -> Value {
    merged(node, Some(left), Some(right)).unwrap_or(Value::Null)
}

fn merged(node: Node, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    let leaf = || right.or(left).cloned();
    match (node.deduced(left.or(right)), node.deduced(right.or(left))) {
        (Node::List { element, list }, Node::List { .. }) if *list != ListType::Atomic => {
            let (left, right) = (items(left), items(right));
            if left.is_empty() && right.is_empty() {
                leaf()
            } else {
                Some(merged_list(element, list, left, right))
                    .filter(|list| !items(Some(list)).is_empty())
            }
        }
        (
            node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }),
            Node::Struct { .. } | Node::Map { .. },
        ) => {
            let (left, right) = (entries(left), entries(right));
            if left.is_none_or(Map::is_empty) && right.is_none_or(Map::is_empty) {
                return leaf();
            }
            let pair = |key: &String| {
                let (child, _) = node.child(key)?;
                let value = merged(
                    child,
                    left.and_then(|map| map.get(key)),
                    right.and_then(|map| map.get(key)),
                )?;
                Some((key.clone(), value))
            };
            let map: Map<String, Value> = keys(left, right).filter_map(pair).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        _ => leaf(),
    }
}

/// The left's order where the right says nothing else; shared items stand in the right's order.
fn merged_list(
    element: &'static Type,
    list: &'static ListType,
    left: &[Value],
    right: &[Value],
) -> Value {
    let node = Node::List { element, list }.item();
    let index = |items: &[Value]| -> Vec<Element> {
        items
            .iter()
            .filter_map(|item| item_element(element, list, item).ok())
            .collect()
    };
    let (left_keys, right_keys) = (index(left), index(right));
    // An item that the left has twice is not merged with: the right's replaces it.
    let find = |keys: &[Element], items: &'_ [Value], key: &Element| -> Option<Value> {
        let mut found = keys.iter().enumerate().filter(|(_, other)| *other == key);
        let first = found.next()?.0;
        Some(if found.next().is_some() {
            Value::Null
        } else {
            items[first].clone()
        })
    };
    let mut shared = right_keys.iter().filter(|key| left_keys.contains(key));
    let mut next_shared = shared.next();
    let (mut out, mut l, mut r, mut done): (Vec<Value>, usize, usize, Vec<&Element>) =
        (Vec::new(), 0, 0, Vec::new());
    while l < left_keys.len() || r < right_keys.len() {
        if l < left_keys.len() && r < right_keys.len() {
            let key = &left_keys[l];
            if key == &right_keys[r] {
                done.push(key);
                out.extend(merged(
                    node,
                    find(&left_keys, left, key).as_ref(),
                    right.get(r),
                ));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if right_keys.contains(key) && next_shared.is_some_and(|next| next != key) {
                // Shared, but not the one whose turn it is.
                l += 1;
                continue;
            }
        }
        if l < left_keys.len() {
            let key = &left_keys[l];
            if !right_keys.contains(key) {
                out.extend(merged(node, left.get(l), None));
                l += 1;
                continue;
            }
            if done.contains(&key) {
                l += 1;
            }
        }
        if r < right_keys.len() {
            let key = &right_keys[r];
            done.push(key);
            out.extend(merged(
                node,
                find(&left_keys, left, key).as_ref(),
                right.get(r),
            ));
            r += 1;
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
        }
    }
    Value::Array(out)
}

/// The value without these paths.
pub fn remove(node: Node, value: &Value, paths: &Set) -> Value {
    match (node.deduced(Some(value)), value) {
        (Node::Scalar(_), value) => value.clone(),
        (node @ Node::List { element, list }, Value::Array(list_items))
            if *list != ListType::Atomic =>
        {
            let kept = list_items.iter().filter_map(|item| {
                let Ok(key) = item_element(element, list, item) else {
                    return Some(item.clone());
                };
                if paths.has_member(&key) {
                    return None;
                }
                Some(
                    paths
                        .below(&key)
                        .map_or_else(|| item.clone(), |below| remove(node.item(), item, below)),
                )
            });
            Some(kept.collect::<Vec<_>>())
                .filter(|items| !items.is_empty())
                .map_or(Value::Null, Value::Array)
        }
        (
            node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }),
            Value::Object(map),
        ) => {
            let kept = map.iter().filter_map(|(key, value)| {
                let element = Element::field(key);
                if paths.has_member(&element) {
                    return None;
                }
                let child = node.child(key).map_or(Node::Free, |(child, _)| child);
                Some((
                    key.clone(),
                    paths
                        .below(&element)
                        .map_or_else(|| value.clone(), |below| remove(child, value, below)),
                ))
            });
            Some(kept.collect::<Map<_, _>>())
                .filter(|map| !map.is_empty())
                .map_or(Value::Null, Value::Object)
        }
        _ => Value::Null,
    }
}
