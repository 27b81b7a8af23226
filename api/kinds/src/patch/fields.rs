//! Sets of field paths, and `FieldsV1`, the form in which `managedFields` carries them.
//!
//! A path leads through fields (`.spec`), items of keyed lists (`[name="a"]`) and items of sets (`[="x"]`). A path's being in a set says
//! nothing of its parents or children. Source: structured-merge-diff `fieldpath`.

use crate::error::go_quote;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Set>,
}

/// One step of a path. The order is that of `FieldsV1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    Field(String),
    /// An item of a keyed list, by its keys' names in order.
    Key(Vec<(String, Scalar)>),
    /// An item of a set.
    Value(Scalar),
    Index(i64),
}

/// A value that an item is known by.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

/// Why a `fieldsV1` can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldsError(String);

impl FieldsError {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Set {
    /// A set of paths of plain fields.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(
                &path
                    .iter()
                    .map(|field| Element::Field((*field).to_owned()))
                    .collect::<Vec<_>>(),
            );
        }
        set
    }

    pub fn insert(&mut self, path: &[Element]) {
        match path {
            // The whole object is nobody's.
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Puts a member in, and what lies below it.
    pub fn put(&mut self, element: Element, member: bool, below: Set) {
        if !below.is_empty() {
            self.children.insert(element.clone(), below);
        }
        if member {
            self.members.insert(element);
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self
                .children
                .get(first)
                .is_some_and(|child| child.has(rest)),
        }
    }

    pub fn has_member(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// What lies below an element.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.children.get(element).filter(|set| !set.is_empty())
    }

    pub fn children(&self) -> impl Iterator<Item = (&Element, &Set)> {
        self.children.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Set::is_empty)
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.members.extend(other.members.iter().cloned());
        for (element, set) in &other.children {
            let child = union.children.entry(element.clone()).or_default();
            *child = child.union(set);
        }
        union
    }

    pub fn intersection(&self, other: &Set) -> Set {
        self.combine(
            other,
            |here, there| here && there,
            |child, other| other.map(|other| child.intersection(other)),
        )
    }

    /// The paths that are not in the other; their parents and children are not touched.
    pub fn difference(&self, other: &Set) -> Set {
        self.combine(
            other,
            |_, there| !there,
            |child, other| {
                Some(other.map_or_else(|| child.clone(), |other| child.difference(other)))
            },
        )
    }

    /// The paths that are neither in the other nor below a path of it.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let mut rest = self.clone();
        rest.members
            .retain(|element| !other.members.contains(element));
        rest.children
            .retain(|element, _| !other.members.contains(element));
        for (element, child) in &mut rest.children {
            if let Some(other) = other.children.get(element) {
                *child = child.recursive_difference(other);
            }
        }
        rest.children.retain(|_, child| !child.is_empty());
        rest
    }

    fn combine(
        &self,
        other: &Set,
        keep: fn(bool, bool) -> bool,
        below: fn(&Set, Option<&Set>) -> Option<Set>,
    ) -> Set {
        let members = self
            .members
            .iter()
            .filter(|element| keep(true, other.members.contains(*element)))
            .cloned()
            .collect();
        let children = self.children.iter().filter_map(|(element, child)| {
            let child =
                below(child, other.children.get(element)).filter(|child| !child.is_empty())?;
            Some((element.clone(), child))
        });
        Set {
            members,
            children: children.collect(),
        }
    }

    /// All paths: at each level the members first, then what lies below.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths: Vec<Vec<Element>> = self
            .members
            .iter()
            .map(|element| vec![element.clone()])
            .collect();
        for (element, child) in &self.children {
            paths.extend(
                child
                    .paths()
                    .into_iter()
                    .map(|below| [vec![element.clone()], below].concat()),
            );
        }
        paths
    }

    /// As `fieldsV1` has it: `{"f:data":{".":{},"f:a":{}}}`.
    pub fn to_fields(&self) -> Value {
        let mut map = Map::new();
        let elements: BTreeSet<&Element> =
            self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            let mut inner = Map::new();
            if let Some(child) = self.below(element) {
                if self.members.contains(element) {
                    inner.insert(".".into(), Value::Object(Map::new()));
                }
                if let Value::Object(fields) = child.to_fields() {
                    inner.extend(fields);
                }
            } else if !self.members.contains(element) {
                continue;
            }
            map.insert(element.to_key(), Value::Object(inner));
        }
        Value::Object(map)
    }

    pub fn from_fields(fields: &Value) -> Result<Self, FieldsError> {
        let Value::Object(map) = fields else {
            return Err(FieldsError("fieldsV1 must be an object".into()));
        };
        let mut set = Self::default();
        for (key, value) in map {
            if key == "." {
                continue;
            }
            let element = Element::parse(key)?;
            let below = Self::from_fields(value)?;
            let member = value
                .as_object()
                .is_some_and(|map| map.is_empty() || map.contains_key("."));
            set.put(element, member, below);
        }
        Ok(set)
    }
}

impl Element {
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let map: Map<String, Value> = keys
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect();
                format!("k:{}", Value::Object(map))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn parse(key: &str) -> Result<Self, FieldsError> {
        let wrong = || FieldsError(format!("{} is no path element", go_quote(key)));
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| wrong());
        match key.split_once(':').ok_or_else(wrong)? {
            ("f", name) => Ok(Self::Field(name.to_owned())),
            ("v", value) => Ok(Self::Value(Scalar(json(value)?))),
            ("i", index) => index.parse().map(Self::Index).map_err(|_| wrong()),
            ("k", keys) => match json(keys)? {
                Value::Object(map) => {
                    let mut keys: Vec<(String, Scalar)> = map
                        .into_iter()
                        .map(|(name, value)| (name, Scalar(value)))
                        .collect();
                    keys.sort();
                    Ok(Self::Key(keys))
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// `.spec.containers[name="a"].image`
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => f.write_str(&go_quote(text)),
            other => write!(f, "{other}"),
        }
    }
}

impl Scalar {
    /// Numbers come before strings, and these before truth values.
    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a
                    .as_f64()
                    .unwrap_or_default()
                    .total_cmp(&b.as_f64().unwrap_or_default()),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => self
                .rank()
                .cmp(&other.rank())
                .then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(fields: Value) -> Set {
        Set::from_fields(&fields).unwrap()
    }

    #[test]
    fn fields_are_read_and_written_alike() {
        let rows = [
            (
                json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}),
                vec![".data", ".data.a", ".data.b"],
            ),
            (
                json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}}}}}}}),
                vec![
                    ".spec.containers[name=\"a\"]",
                    ".spec.containers[name=\"a\"].image",
                    ".spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]",
                ],
            ),
            (
                json!({"f:metadata": {"f:finalizers": {"v:\"x/y\"": {}}}}),
                vec![".metadata.finalizers[=\"x/y\"]"],
            ),
            (json!({}), vec![]),
        ];
        for (fields, paths) in rows {
            let read = set(fields.clone());
            assert_eq!(
                read.paths()
                    .iter()
                    .map(|path| path_text(path))
                    .collect::<Vec<_>>(),
                paths
            );
            assert_eq!(set(read.to_fields()), read);
        }
        assert!(
            Set::from_fields(&json!({"x": {}})).is_err()
                && Set::from_fields(&json!({"q:x": {}})).is_err()
        );
    }

    #[test]
    fn sets_combine() {
        let (a, b) = (
            json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}}),
            json!({"f:a": {"f:x": {}}, "f:c": {}}),
        );
        let rows = [
            (
                set(a.clone()).union(&set(b.clone())),
                json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}, "f:c": {}}),
            ),
            (
                set(a.clone()).intersection(&set(b.clone())),
                json!({"f:a": {"f:x": {}}}),
            ),
            (
                set(a.clone()).difference(&set(b.clone())),
                json!({"f:a": {".": {}, "f:y": {}}, "f:b": {}}),
            ),
            (
                set(a.clone()).recursive_difference(&set(json!({"f:a": {}}))),
                json!({"f:b": {}}),
            ),
            (
                set(a.clone()).difference(&set(json!({"f:a": {}}))),
                json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}),
            ),
        ];
        for (found, expected) in rows {
            assert_eq!(found.to_fields(), expected);
        }
    }
}
