//! Objects as their schema sees them: which paths a value has, how two values differ, how one is merged into another.
//!
//! Structs and maps merge by field, unless they are atomic; lists by their keys or as sets, unless they are atomic, which is the
//! rule. A part that is atomic is one value. Source: structured-merge-diff `typed`; KEP-555.

use super::fields::{Element, Scalar, Set, path_text};
use crate::schema::{Field, ListType, Schema, Shape, Type};
use serde_json::{Map, Number, Value, json};

/// What the schema says of one place in an object.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    Scalar(Kind),
    Struct { schema: &'static Schema, atomic: bool },
    Map { element: &'static Type, atomic: bool },
    List { element: &'static Type, list: &'static ListType },
    /// Beyond the schema: maps merge, lists do not.
    Free,
}

/// Which scalars a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Number,
    Bool,
    Any,
}

/// How two values differ. No path is in more than one of these.
#[derive(Debug, Default)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

static ATOMIC: ListType = ListType::Atomic;
static ANY: Type = Type::Any;

impl Node {
    pub fn root(schema: &'static Schema) -> Self {
        Self::Struct { schema, atomic: false }
    }

    fn of(ty: &'static Type, field: Option<&'static Field>) -> Self {
        let atomic = field.is_some_and(|field| field.atomic);
        match ty {
            Type::String | Type::Bytes => Self::Scalar(Kind::String),
            Type::Int32 | Type::Int64 | Type::Double => Self::Scalar(Kind::Number),
            Type::Bool => Self::Scalar(Kind::Bool),
            Type::List(element) => Self::List { element, list: field.map_or(&ATOMIC, |field| &field.list) },
            Type::Map(element) => Self::Map { element, atomic },
            Type::Any => Self::Free,
            Type::Named(_) => match ty.schema() {
                Some(schema) => match schema.shape {
                    Shape::Struct(_) => Self::Struct { schema, atomic: atomic || schema.atomic },
                    Shape::Any => Self::Free,
                    _ => Self::Scalar(Kind::Any),
                },
                None => Self::Free,
            },
        }
    }

    /// The place of a field, and whether the schema names it; None where it may not be.
    fn child(self, name: &str) -> Option<(Self, bool)> {
        match self {
            Self::Struct { schema, .. } => schema.field(name).map(|field| (Self::of(&field.ty, Some(field)), true)),
            Self::Map { element, .. } => Some((Self::of(element, None), false)),
            _ => Some((Self::Free, false)),
        }
    }

    fn item(self) -> Self {
        if let Self::List { element, .. } = self { Self::of(element, None) } else { Self::Free }
    }

    /// Where the schema says nothing, the value does.
    fn deduced(self, value: Option<&Value>) -> Self {
        match (self, value) {
            (Self::Free, Some(Value::Array(_))) => Self::List { element: &ANY, list: &ATOMIC },
            (Self::Free, Some(Value::Object(_) | Value::Null) | None) => Self::Map { element: &ANY, atomic: false },
            (Self::Free, Some(_)) => Self::Scalar(Kind::Any),
            (node, _) => node,
        }
    }
}

/// What the value of an absent field that is a list's key counts as.
fn key_default(element: &'static Type, name: &str) -> Option<Value> {
    let field = element.schema()?.field(name)?;
    field.default.clone().or_else(|| match (field.always && !field.pointer, &field.ty) {
        (true, Type::String) => Some(json!("")),
        (true, Type::Int32 | Type::Int64) => Some(json!(0)),
        _ => None,
    })
}

/// How an item of a set or of a keyed list is known.
fn item_element(element: &'static Type, list: &ListType, item: &Value) -> Result<Element, String> {
    match (list, item) {
        (ListType::Map(_), Value::Null) => Err("associative list with keys may not have a null element".into()),
        (ListType::Map(names), Value::Object(map)) => {
            let value = |name: &String| map.get(name).cloned().or_else(|| key_default(element, name));
            let mut keys: Vec<(String, Scalar)> =
                names.iter().filter_map(|name| Some((name.clone(), Scalar(value(name)?)))).collect();
            if keys.is_empty() {
                let names: Vec<String> = names.iter().map(|name| crate::error::go_quote(name)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            keys.sort();
            Ok(Element::Key(keys))
        }
        (ListType::Map(_), _) => Err("associative list with keys may not have non-map elements".into()),
        (_, Value::Object(_)) => Err("associative list without keys has an element that's a map type".into()),
        (_, Value::Array(_)) => Err("not supported: associative list with lists as elements".into()),
        (_, Value::Null) => Err("associative list without keys has an element that's an explicit null".into()),
        (_, scalar) => Ok(Element::Value(Scalar(scalar.clone()))),
    }
}

// ---- which paths a value has ------------------------------------------------------------------------------------------------

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
        | (Node::Struct { atomic: true, .. } | Node::Map { atomic: true, .. } | Node::List { list: ListType::Atomic, .. }, _) => true,
        (node @ (Node::Struct { .. } | Node::Map { .. } | Node::Free), Value::Object(map)) => {
            for (key, value) in map {
                let Some((child, declared)) = node.child(key) else { continue };
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

// ---- how two values differ --------------------------------------------------------------------------------------------------

pub fn compare(node: Node, left: &Value, right: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    differ(node, Some(left), Some(right), &mut Vec::new(), &mut comparison);
    comparison
}

impl Comparison {
    /// Without what lies in these paths or below.
    pub fn without(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

fn differ(node: Node, left: Option<&Value>, right: Option<&Value>, path: &mut Vec<Element>, out: &mut Comparison) {
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
        (node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }), Node::Struct { .. } | Node::Map { .. }) => {
            let (left, right) = (entries(left), entries(right));
            let count = |map: Option<&Map<String, Value>>| map.map_or(0, Map::len);
            for key in keys(left, right) {
                if let Some((child, _)) = node.child(key) {
                    path.push(Element::field(key));
                    differ(child, left.and_then(|map| map.get(key)), right.and_then(|map| map.get(key)), path, out);
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

fn differ_list(element: &'static Type, list: &'static ListType, left: &[Value], right: &[Value], path: &mut Vec<Element>, out: &mut Comparison) {
    let (left, right) = (by_element(element, list, left), by_element(element, list, right));
    let node = Node::List { element, list }.item();
    let left_keys = left.iter().map(|(key, _)| key);
    let new_keys = right.iter().map(|(key, _)| key).filter(|key| !left.iter().any(|(other, _)| other == *key));
    for key in left_keys.chain(new_keys) {
        let found = |list: &'_ Vec<(Element, Vec<Value>)>| list.iter().find(|(other, _)| other == key).map(|(_, items)| items.clone()).unwrap_or_default();
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

/// Items by what they are known by, in the order of their first coming.
fn by_element(element: &'static Type, list: &ListType, items: &[Value]) -> Vec<(Element, Vec<Value>)> {
    let mut found: Vec<(Element, Vec<Value>)> = Vec::new();
    for item in items {
        let Ok(key) = item_element(element, list, item) else { continue };
        match found.iter_mut().find(|(other, _)| *other == key) {
            Some((_, items)) => items.push(item.clone()),
            None => found.push((key, vec![item.clone()])),
        }
    }
    found
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn entries(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn keys<'a>(left: Option<&'a Map<String, Value>>, right: Option<&'a Map<String, Value>>) -> impl Iterator<Item = &'a String> {
    let new = right.into_iter().flat_map(Map::keys).filter(move |key| left.is_none_or(|map| !map.contains_key(*key)));
    left.into_iter().flat_map(Map::keys).chain(new)
}

// ---- merging ----------------------------------------------------------------------------------------------------------------

/// The right merged into the left: nothing goes, and what both have is the right's.
pub fn merge(node: Node, left: &Value, right: &Value) -> Value {
    merged(node, Some(left), Some(right)).unwrap_or(Value::Null)
}

fn merged(node: Node, left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    let leaf = || right.or(left).cloned();
    match (node.deduced(left.or(right)), node.deduced(right.or(left))) {
        (Node::List { element, list }, Node::List { .. }) if *list != ListType::Atomic => {
            let (left, right) = (items(left), items(right));
            if left.is_empty() && right.is_empty() { leaf() } else { Some(merged_list(element, list, left, right)).filter(|list| !items(Some(list)).is_empty()) }
        }
        (node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }), Node::Struct { .. } | Node::Map { .. }) => {
            let (left, right) = (entries(left), entries(right));
            if left.is_none_or(Map::is_empty) && right.is_none_or(Map::is_empty) {
                return leaf();
            }
            let pair = |key: &String| {
                let (child, _) = node.child(key)?;
                let value = merged(child, left.and_then(|map| map.get(key)), right.and_then(|map| map.get(key)))?;
                Some((key.clone(), value))
            };
            let map: Map<String, Value> = keys(left, right).filter_map(pair).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        _ => leaf(),
    }
}

/// The left's order where the right says nothing else; shared items stand in the right's order.
fn merged_list(element: &'static Type, list: &'static ListType, left: &[Value], right: &[Value]) -> Value {
    let node = Node::List { element, list }.item();
    let index = |items: &[Value]| -> Vec<Element> { items.iter().filter_map(|item| item_element(element, list, item).ok()).collect() };
    let (left_keys, right_keys) = (index(left), index(right));
    // An item that the left has twice is not merged with: the right's replaces it.
    let find = |keys: &[Element], items: &'_ [Value], key: &Element| -> Option<Value> {
        let mut found = keys.iter().enumerate().filter(|(_, other)| *other == key);
        let first = found.next()?.0;
        Some(if found.next().is_some() { Value::Null } else { items[first].clone() })
    };
    let mut shared = right_keys.iter().filter(|key| left_keys.contains(key));
    let mut next_shared = shared.next();
    let (mut out, mut l, mut r, mut done): (Vec<Value>, usize, usize, Vec<&Element>) = (Vec::new(), 0, 0, Vec::new());
    while l < left_keys.len() || r < right_keys.len() {
        if l < left_keys.len() && r < right_keys.len() {
            let key = &left_keys[l];
            if key == &right_keys[r] {
                done.push(key);
                out.extend(merged(node, find(&left_keys, left, key).as_ref(), right.get(r)));
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
            out.extend(merged(node, find(&left_keys, left, key).as_ref(), right.get(r)));
            r += 1;
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
        }
    }
    Value::Array(out)
}

// ---- removing ---------------------------------------------------------------------------------------------------------------

/// The value without these paths.
pub fn remove(node: Node, value: &Value, paths: &Set) -> Value {
    match (node.deduced(Some(value)), value) {
        (Node::Scalar(_), value) => value.clone(),
        (node @ Node::List { element, list }, Value::Array(list_items)) if *list != ListType::Atomic => {
            let kept = list_items.iter().filter_map(|item| {
                let Ok(key) = item_element(element, list, item) else { return Some(item.clone()) };
                if paths.has_member(&key) {
                    return None;
                }
                Some(paths.below(&key).map_or_else(|| item.clone(), |below| remove(node.item(), item, below)))
            });
            Some(kept.collect::<Vec<_>>()).filter(|items| !items.is_empty()).map_or(Value::Null, Value::Array)
        }
        (node @ (Node::Struct { atomic: false, .. } | Node::Map { atomic: false, .. }), Value::Object(map)) => {
            let kept = map.iter().filter_map(|(key, value)| {
                let element = Element::field(key);
                if paths.has_member(&element) {
                    return None;
                }
                let child = node.child(key).map_or(Node::Free, |(child, _)| child);
                Some((key.clone(), paths.below(&element).map_or_else(|| value.clone(), |below| remove(child, value, below))))
            });
            Some(kept.collect::<Map<_, _>>()).filter(|map| !map.is_empty()).map_or(Value::Null, Value::Object)
        }
        _ => Value::Null,
    }
}

// ---- whether a value fits ---------------------------------------------------------------------------------------------------

/// What in an applied configuration does not fit the schema, in the server's words; None where all does.
pub fn misfit(node: Node, value: &Value) -> Option<String> {
    let mut errors = Vec::new();
    check(node, value, &mut Vec::new(), &mut errors);
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("errors:\n{}", several.iter().map(|error| format!("  {error}")).collect::<Vec<_>>().join("\n"))),
    }
}

fn check(node: Node, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<String>) {
    let mut wrong = |path: &[Element], text: String| errors.push(if path.is_empty() { text } else { format!("{}: {text}", path_text(path)) });
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
                    None => errors.push(format!("{}: field not declared in schema", path_text(path))),
                }
                path.pop();
            }
        }
        (Node::Struct { .. } | Node::Map { .. }, other) => wrong(path, format!("expected map, got &{{{}}}", super::go_value(other))),
        (node @ Node::List { element, list }, Value::Array(items)) => {
            let mut seen = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let key = if *list == ListType::Atomic { Element::Index(index as i64) } else {
                    match item_element(element, list, item) {
                        Ok(key) => key,
                        Err(error) => return errors.push(format!("{}: element {index}: {error}", path_text(path))),
                    }
                };
                if seen.contains(&key) {
                    errors.push(format!("{}: duplicate entries for key {key}", path_text(path)));
                }
                path.push(key.clone());
                seen.push(key);
                check(node.item(), item, path, errors);
                path.pop();
            }
        }
        (Node::List { .. }, other) => wrong(path, format!("expected list, got &{{{}}}", super::go_value(other))),
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
        Value::Number(number) if Number::is_f64(number) => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    match kind {
        Kind::String => format!("expected string, got &value.valueUnstructured{{Value:{go}}}"),
        Kind::Number => format!("expected numeric (int or float), got {type_name}"),
        Kind::Bool => format!("expected boolean, got &{{{}}}", super::go_value(value)),
        Kind::Any => format!("expected any scalar, got &{{{}}}", super::go_value(value)),
    }
}
