//! Objects as their schema sees them: which paths a value has, how two values differ, how one is merged into another.
//!
//! Structs and maps merge by field, unless they are atomic; lists by their keys or as sets, unless they are atomic, which is the
//! rule. A part that is atomic is one value. Source: structured-merge-diff `typed`; KEP-555.

pub mod check;
pub mod compare;
pub mod merge;
pub mod paths;

use super::fields::{Element, Scalar};
use crate::schema::{Field, ListType, Schema, Shape, Type};
use serde_json::{Map, Value, json};

/// What the schema says of one place in an object.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    Scalar(Kind),
    Struct {
        schema: &'static Schema,
        atomic: bool,
    },
    Map {
        element: &'static Type,
        atomic: bool,
    },
    List {
        element: &'static Type,
        list: &'static ListType,
    },
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

static ATOMIC: ListType = ListType::Atomic;
static ANY: Type = Type::Any;

impl Node {
    pub fn root(schema: &'static Schema) -> Self {
        Self::Struct {
            schema,
            atomic: false,
        }
    }

    fn of(ty: &'static Type, field: Option<&'static Field>) -> Self {
        let atomic = field.is_some_and(|field| field.atomic);
        match ty {
            Type::String | Type::Bytes => Self::Scalar(Kind::String),
            Type::Int32 | Type::Int64 | Type::Double => Self::Scalar(Kind::Number),
            Type::Bool => Self::Scalar(Kind::Bool),
            Type::List(element) => Self::List {
                element,
                list: field.map_or(&ATOMIC, |field| &field.list),
            },
            Type::Map(element) => Self::Map { element, atomic },
            Type::Any => Self::Free,
            Type::Named(_) => match ty.schema() {
                Some(schema) => match schema.shape {
                    Shape::Struct(_) => Self::Struct {
                        schema,
                        atomic: atomic || schema.atomic,
                    },
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
            Self::Struct { schema, .. } => schema
                .field(name)
                .map(|field| (Self::of(&field.ty, Some(field)), true)),
            Self::Map { element, .. } => Some((Self::of(element, None), false)),
            _ => Some((Self::Free, false)),
        }
    }

    fn item(self) -> Self {
        if let Self::List { element, .. } = self {
            Self::of(element, None)
        } else {
            Self::Free
        }
    }

    /// Where the schema says nothing, the value does.
    fn deduced(self, value: Option<&Value>) -> Self {
        match (self, value) {
            (Self::Free, Some(Value::Array(_))) => Self::List {
                element: &ANY,
                list: &ATOMIC,
            },
            (Self::Free, Some(Value::Object(_) | Value::Null) | None) => Self::Map {
                element: &ANY,
                atomic: false,
            },
            (Self::Free, Some(_)) => Self::Scalar(Kind::Any),
            (node, _) => node,
        }
    }
}

/// What the value of an absent field that is a list's key counts as.
fn key_default(element: &'static Type, name: &str) -> Option<Value> {
    let field = element.schema()?.field(name)?;
    field
        .default
        .clone()
        .or_else(|| match (field.always && !field.pointer, &field.ty) {
            (true, Type::String) => Some(json!("")),
            (true, Type::Int32 | Type::Int64) => Some(json!(0)),
            _ => None,
        })
}

/// How an item of a set or of a keyed list is known.
fn item_element(element: &'static Type, list: &ListType, item: &Value) -> Result<Element, String> {
    match (list, item) {
        (ListType::Map(_), Value::Null) => {
            Err("associative list with keys may not have a null element".into())
        }
        (ListType::Map(names), Value::Object(map)) => {
            let value = |name: &String| {
                map.get(name)
                    .cloned()
                    .or_else(|| key_default(element, name))
            };
            let mut keys: Vec<(String, Scalar)> = names
                .iter()
                .filter_map(|name| Some((name.clone(), Scalar(value(name)?))))
                .collect();
            if keys.is_empty() {
                let names: Vec<String> = names
                    .iter()
                    .map(|name| crate::error::go_quote(name))
                    .collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            keys.sort();
            Ok(Element::Key(keys))
        }
        (ListType::Map(_), _) => {
            Err("associative list with keys may not have non-map elements".into())
        }
        (_, Value::Object(_)) => {
            Err("associative list without keys has an element that's a map type".into())
        }
        (_, Value::Array(_)) => {
            Err("not supported: associative list with lists as elements".into())
        }
        (_, Value::Null) => {
            Err("associative list without keys has an element that's an explicit null".into())
        }
        (_, scalar) => Ok(Element::Value(Scalar(scalar.clone()))),
    }
}

/// Items by what they are known by, in the order of their first coming.
fn by_element(
    element: &'static Type,
    list: &ListType,
    items: &[Value],
) -> Vec<(Element, Vec<Value>)> {
    let mut found: Vec<(Element, Vec<Value>)> = Vec::new();
    for item in items {
        let Ok(key) = item_element(element, list, item) else {
            continue;
        };
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

fn keys<'a>(
    left: Option<&'a Map<String, Value>>,
    right: Option<&'a Map<String, Value>>,
) -> impl Iterator<Item = &'a String> {
    let new = right
        .into_iter()
        .flat_map(Map::keys)
        .filter(move |key| left.is_none_or(|map| !map.contains_key(*key)));
    left.into_iter().flat_map(Map::keys).chain(new)
}
