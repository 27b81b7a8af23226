//! Label and field selectors: parse, match, print.
//!
//! A label selector comes as text (`tier in (a,b),!old`), or as the object that workloads carry; both become the same list of
//! requirements. Errors are the server's own texts. Nothing here knows an object: it asks for a label's or a field's value.
//! Source: k8s.io/apimachinery `labels` and `fields`.

mod parse;
#[cfg(test)]
mod tests;

use crate::error::{FieldError, StatusError};
use crate::kind::Kind;
use crate::resources::names;
use serde_json::Value;
use std::fmt;

/// All of its requirements must hold; with none it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches no object at all: what an absent LabelSelector object means.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repetitions.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// Terms `field=value` and `field!=value`, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// Labels of an object, as `metadata.labels` holds them.
pub fn label<'a>(labels: Option<&'a Value>, key: &str) -> Option<&'a str> {
    labels?.get(key)?.as_str()
}

impl LabelSelector {
    /// Parses the `labelSelector` of a request. The error is a 400 with the server's text.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        let requirements = parse::Parser::new(text)
            .parse()
            .map_err(StatusError::bad_request)?;
        Ok(Self::of(requirements))
    }

    /// From a LabelSelector object; absent means nothing, empty means everything.
    pub fn from_object(object: Option<&Value>) -> Result<Self, String> {
        let Some(object) = object.filter(|object| !object.is_null()) else {
            return Ok(Self {
                requirements: Vec::new(),
                nothing: true,
            });
        };
        let mut requirements = Vec::new();
        for (key, value) in object
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            requirements.push(Requirement::new(
                key,
                Operator::Equals,
                vec![value.as_str().unwrap_or_default().to_owned()],
            )?);
        }
        for expression in object
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = |field: &str| {
                expression
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(format!(
                        "{} is not a valid label selector operator",
                        crate::error::go_quote(other)
                    ));
                }
            };
            let values = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let values = values
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// From a plain map of labels (a Service's or a ReplicationController's selector): all must be equal.
    pub fn from_map(map: Option<&Value>) -> Self {
        let pairs = map.and_then(Value::as_object).into_iter().flatten();
        Self::of(
            pairs
                .map(|(key, value)| Requirement {
                    key: key.clone(),
                    operator: Operator::Equals,
                    values: vec![value.as_str().unwrap_or_default().to_owned()],
                })
                .collect(),
        )
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements,
            nothing: false,
        }
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Has no requirement (and so matches everything, unless it was made from an absent object).
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `labels`: the object's `metadata.labels`, if it has any.
    pub fn matches(&self, labels: Option<&Value>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(label(labels, &requirement.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .requirements
            .iter()
            .map(Requirement::to_string)
            .collect();
        f.write_str(&texts.join(","))
    }
}

impl Requirement {
    fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let mut errors = Vec::new();
        let wrong_key = names::qualified_name(key);
        if !wrong_key.is_empty() {
            errors.push(FieldError::invalid("key", key, wrong_key.join("; ")));
        }
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals
                if values.len() != 1 =>
            {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !complaint.is_empty() {
            errors.push(FieldError::invalid("values", values.clone(), complaint));
        }
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan)
                && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(
                    format!("values[{index}]"),
                    value.clone(),
                    detail,
                ));
            }
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(
                    format!("values[{index}][{key}]"),
                    value.clone(),
                    wrong.join("; "),
                ));
            }
        }
        values.sort();
        values.dedup();
        match errors.as_slice() {
            [] => Ok(Self {
                key: key.to_owned(),
                operator,
                values,
            }),
            [one] => Err(one.to_string()),
            several => Err(format!(
                "[{}]",
                several
                    .iter()
                    .map(FieldError::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let named = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(named),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(named),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let found = value.and_then(|value| value.parse::<i64>().ok());
                let limit = self
                    .values
                    .first()
                    .and_then(|value| value.parse::<i64>().ok());
                match (found, limit) {
                    (Some(found), Some(limit)) if self.operator == Operator::GreaterThan => {
                        found > limit
                    }
                    (Some(found), Some(limit)) => found < limit,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, first) = (&self.key, self.values.first().map_or("", String::as_str));
        match self.operator {
            Operator::In => write!(f, "{key} in ({})", self.values.join(",")),
            Operator::NotIn => write!(f, "{key} notin ({})", self.values.join(",")),
            Operator::Equals => write!(f, "{key}={first}"),
            Operator::DoubleEquals => write!(f, "{key}=={first}"),
            Operator::NotEquals => write!(f, "{key}!={first}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{first}"),
            Operator::LessThan => write!(f, "{key}<{first}"),
        }
    }
}

impl FieldSelector {
    /// Parses the `fieldSelector` of a request. The error is a 400 with the server's text.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let Some(term) = split_term(part) else {
                return Err(StatusError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let (field, equal, value) = term;
            let value = unescape(value).map_err(StatusError::bad_request)?;
            terms.push(FieldTerm {
                field: field.to_owned(),
                equal,
                value,
            });
        }
        Ok(Self { terms })
    }

    /// Refuses fields that the kind can't be selected by.
    pub fn check(&self, kind: &Kind) -> Result<(), StatusError> {
        let known = |field: &str| {
            matches!(field, "metadata.name" | "metadata.namespace")
                || kind.selectable.contains(&field)
        };
        match self.terms.iter().find(|term| !known(&term.field)) {
            None => Ok(()),
            Some(term) if kind.selectable.is_empty() => Err(StatusError::bad_request(format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                crate::error::go_quote(&term.field)
            ))),
            Some(term) => Err(StatusError::bad_request(format!(
                "field label not supported: {}",
                term.field
            ))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// `value`: the object's value of a field; None counts as empty.
    pub fn matches(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        self.terms
            .iter()
            .all(|term| (value(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    /// The value that this field must have, if the selector says so: a list by `metadata.name` is a get.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |value: &str| {
            value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=")
        };
        let print = |term: &FieldTerm| {
            format!(
                "{}{}{}",
                term.field,
                if term.equal { "=" } else { "!=" },
                escape(&term.value)
            )
        };
        f.write_str(&self.terms.iter().map(print).collect::<Vec<_>>().join(","))
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            parts.push(&text[start..index]);
            start = index + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (index, _) in term.char_indices() {
        let rest = &term[index..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..index], equal, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut value, mut escaped) = (String::new(), false);
    for c in text.chars() {
        match (escaped, c) {
            (true, '\\' | ',' | '=') => {
                value.push(c);
                escaped = false;
            }
            (true, c) => {
                return Err(format!(
                    "invalid field selector: invalid escape sequence: \\{c}"
                ));
            }
            (false, '\\') => escaped = true,
            (false, ',' | '=') => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                ));
            }
            (false, c) => value.push(c),
        }
    }
    if escaped {
        Err("invalid field selector: invalid escape sequence: \\".into())
    } else {
        Ok(value)
    }
}
