//! Label and field selectors: parse, match, print.
//!
//! A label selector comes as text (`tier in (a,b),!old`), or as the object that workloads carry; both become the same list of
//! requirements. Errors are the server's own texts. Nothing here knows an object: it asks for a label's or a field's value.
//! Source: k8s.io/apimachinery `labels` and `fields`.

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
        let requirements = Parser::new(text).parse().map_err(StatusError::bad_request)?;
        Ok(Self::of(requirements))
    }

    /// From a LabelSelector object; absent means nothing, empty means everything.
    pub fn from_object(object: Option<&Value>) -> Result<Self, String> {
        let Some(object) = object.filter(|object| !object.is_null()) else {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        };
        let mut requirements = Vec::new();
        for (key, value) in object.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.as_str().unwrap_or_default().to_owned()])?);
        }
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{} is not a valid label selector operator", crate::error::go_quote(other))),
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
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
        Self { requirements, nothing: false }
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
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(label(labels, &requirement.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(Requirement::to_string).collect();
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
            Operator::In | Operator::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
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
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format!("values[{index}]"), value.clone(), detail));
            }
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(format!("values[{index}][{key}]"), value.clone(), wrong.join("; ")));
            }
        }
        values.sort();
        values.dedup();
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values }),
            [one] => Err(one.to_string()),
            several => Err(format!("[{}]", several.iter().map(FieldError::to_string).collect::<Vec<_>>().join(", "))),
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
                let limit = self.values.first().and_then(|value| value.parse::<i64>().ok());
                match (found, limit) {
                    (Some(found), Some(limit)) if self.operator == Operator::GreaterThan => found > limit,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if rest.is_empty() || rest.starts_with('\0') {
                break;
            }
            let (token, length) = if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                (Token::Symbol(&rest[..symbol.len()]), symbol.len())
            } else {
                let end = rest.find(|c: char| "=!(),>< \t\r\n\0".contains(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            };
            tokens.push(token);
            rest = &rest[length..];
        }
        tokens.push(Token::End);
        Self { tokens, at: 0 }
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    requirements.push(self.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?);
                    match self.next() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => match self.peek() {
                            Token::Word(_) | Token::Symbol("!") => {}
                            other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
                        },
                        other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
                    }
                }
                Token::End => return Ok(requirements),
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let absent = token == Token::Symbol("!");
        if absent {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        let wrong = names::qualified_name(key);
        if !wrong.is_empty() {
            return Err(FieldError::invalid("<nil>", key, wrong.join("; ")).to_string());
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        match self.peek() {
            Token::Symbol(")") => {
                self.next();
                return Ok(vec![String::new()]);
            }
            Token::Word(_) | Token::Symbol(",") => {}
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.push(value.to_owned());
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() || matches!(self.peek(), Token::Symbol("," | ")")) {
                        values.push(String::new());
                    }
                    if self.peek() == Token::Symbol(")") {
                        break;
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            }
        }
        self.next();
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
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
                return Err(StatusError::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let (field, equal, value) = term;
            let value = unescape(value).map_err(StatusError::bad_request)?;
            terms.push(FieldTerm { field: field.to_owned(), equal, value });
        }
        Ok(Self { terms })
    }

    /// Refuses fields that the kind can't be selected by.
    pub fn check(&self, kind: &Kind) -> Result<(), StatusError> {
        let known = |field: &str| matches!(field, "metadata.name" | "metadata.namespace") || kind.selectable.contains(&field);
        match self.terms.iter().find(|term| !known(&term.field)) {
            None => Ok(()),
            Some(term) if kind.selectable.is_empty() => Err(StatusError::bad_request(format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                crate::error::go_quote(&term.field)
            ))),
            Some(term) => Err(StatusError::bad_request(format!("field label not supported: {}", term.field))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// `value`: the object's value of a field; None counts as empty.
    pub fn matches(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|term| (value(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    /// The value that this field must have, if the selector says so: a list by `metadata.name` is a get.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let print = |term: &FieldTerm| {
            format!("{}{}{}", term.field, if term.equal { "=" } else { "!=" }, escape(&term.value))
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
            (true, c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
            (false, '\\') => escaped = true,
            (false, ',' | '=') => return Err(format!("invalid field selector: unescaped character in value: {}", c as u32)),
            (false, c) => value.push(c),
        }
    }
    if escaped { Err("invalid field selector: invalid escape sequence: \\".into()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_parse_print_and_match() {
        let labels = json!({"tier": "front", "env": "test", "n": "5"});
        let rows = [
            ("", "", true), ("tier=front", "tier=front", true), ("tier==back", "tier==back", false), ("tier!=front", "tier!=front", false), ("other!=x", "other!=x", true),
            ("tier in (back, front)", "tier in (back,front)", true), ("tier notin (front)", "tier notin (front)", false), ("other notin (a)", "other notin (a)", true),
            ("env", "env", true), ("!env", "!env", false), ("!other , tier", "!other,tier", true), (" tier = front , env ", "env,tier=front", true),
            ("n>4", "n>4", true), ("n<5", "n<5", false), ("tier>1", "tier>1", false), ("tier=", "tier=", false), ("tier in ()", "tier in ()", false), ("tier in (,front)", "tier in (,front)", true),
            ("in in (in)", "in in (in)", false), ("example.com/a=b", "example.com/a=b", false),
        ];
        for (text, printed, matches) in rows {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!((selector.to_string().as_str(), selector.matches(Some(&labels))), (printed, matches), "{text}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused_in_the_servers_words() {
        let rows = [
            ("tier===x", "unable to parse requirement: found '=', expected: identifier"),
            ("tier=a b", "found 'b', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
            ("-a", "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"),
            ("a=-", "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"),
        ];
        for (text, message) in rows {
            let error = LabelSelector::parse(text).unwrap_err();
            assert_eq!((error.code, error.reason, error.message.as_str()), (400, "BadRequest", message), "{text}");
        }
    }

    #[test]
    fn label_selector_objects_match_as_texts_do() {
        let labels = json!({"app": "web", "tier": "front"});
        let rows = [
            (Value::Null, Ok(("", false))),
            (json!({}), Ok(("", true))),
            (json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}), Ok(("app=web,tier in (back,front)", true))),
            (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), Ok(("!tier", false))),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]}), Err("\"Like\" is not a valid label selector operator")),
            (json!({"matchExpressions": [{"key": "tier", "operator": "In"}]}), Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")),
        ];
        for (object, expected) in rows {
            let found = LabelSelector::from_object(Some(&object)).map(|selector| (selector.to_string(), selector.matches(Some(&labels))));
            assert_eq!(found, expected.map(|(text, matches)| (text.to_owned(), matches)).map_err(str::to_owned), "{object}");
        }
    }

    #[test]
    fn field_selectors_parse_and_match() {
        let value = |field: &str| match field {
            "metadata.name" => Some("one".to_owned()),
            "x" => Some("a,b=c\\".to_owned()),
            _ => None,
        };
        let rows = [
            ("", Ok(("", true))),
            ("metadata.name=one", Ok(("metadata.name=one", true))),
            ("metadata.name==one,spec.nodeName=", Ok(("metadata.name=one,spec.nodeName=", true))),
            ("metadata.name!=one", Ok(("metadata.name!=one", false))),
            ("x=a\\,b\\=c\\\\", Ok(("x=a\\,b\\=c\\\\", true))),
            ("metadata.name", Err("invalid selector: 'metadata.name'; can't understand 'metadata.name'")),
            ("x=a=b", Err("invalid field selector: unescaped character in value: 61")),
            ("x=\\a", Err("invalid field selector: invalid escape sequence: \\a")),
        ];
        for (text, expected) in rows {
            let found = FieldSelector::parse(text).map(|selector| (selector.to_string(), selector.matches(value)));
            let found = found.as_ref().map(|(text, matches)| (text.as_str(), *matches)).map_err(|error| error.message.as_str());
            assert_eq!(found, expected, "{text}");
        }
    }
}
