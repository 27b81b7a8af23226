//! What names may look like: each function gives the messages about a value, none if it is well formed.
//! RFC 1035, RFC 1123, and Kubernetes' own rules for labels, keys and ports (apimachinery `validation` and `content`).

use crate::kind::NameRule;
use std::net::IpAddr;

const SUBDOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;
const PORT_NAME_MAX: usize = 15;
const NOT_EMPTY: &str = "must be non-empty";

/// Messages about an object's name; `prefix`: it is a `generateName`, whose end will be followed by more.
pub fn object_name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A generated suffix starts with a letter or digit, so a trailing dash of a prefix is no fault.
    let masked = if prefix && name.ends_with('-') {
        format!("{}a", &name[..name.len() - 1])
    } else {
        name.to_owned()
    };
    match rule {
        NameRule::Subdomain => subdomain(&masked),
        NameRule::Label => label(&masked),
        NameRule::PathSegment => path_segment(name, prefix),
    }
}

pub fn subdomain(value: &str) -> Vec<String> {
    let mut messages = too_long(value, SUBDOMAIN_MAX);
    if !value.split('.').all(is_label) {
        messages.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
             with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    messages
}

pub fn label(value: &str) -> Vec<String> {
    let mut messages = too_long(value, LABEL_MAX);
    if !is_label(value) {
        messages.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    messages
}

/// `name` or `prefix/name`: the key of a label, an annotation, a taint, the name of a finalizer or a resource.
pub fn qualified_name(value: &str) -> Vec<String> {
    const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
                        (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut messages = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            messages.push(format!("prefix part {NOT_EMPTY}"));
            name
        }
        [prefix, name] => {
            messages.extend(
                subdomain(prefix)
                    .into_iter()
                    .map(|message| format!("prefix part {message}")),
            );
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        messages.push(format!("name part {NOT_EMPTY}"));
    } else {
        messages.extend(
            too_long(name, LABEL_MAX)
                .into_iter()
                .map(|message| format!("name part {message}")),
        );
    }
    if !is_label_text(name) || name.is_empty() {
        messages.push(format!("name part {NAME}"));
    }
    messages
}

pub fn label_value(value: &str) -> Vec<String> {
    let mut messages = too_long(value, LABEL_MAX);
    if !is_label_text(value) {
        messages.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    messages
}

/// The key of a ConfigMap or Secret: it becomes a file's name.
pub fn config_key(value: &str) -> Vec<String> {
    let mut messages = too_long(value, SUBDOMAIN_MAX);
    if value.is_empty()
        || !value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        messages.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or \
             'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match value {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

pub fn environment_name(value: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if value.is_empty() {
        messages.push(format!("environment variable name {NOT_EMPTY}"));
    }
    if !value
        .chars()
        .all(|letter| (' '..='~').contains(&letter) && letter != '=')
    {
        messages.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    messages
}

pub fn port_name(value: &str) -> Vec<String> {
    let mut messages = too_long(value, PORT_NAME_MAX);
    if !value
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        messages.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is \
         '[-A-Za-z0-9]+')"
            .to_owned(),
    ]
}

pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// `10.9.8.0/24`
pub fn cidr(value: &str) -> Vec<String> {
    let fits = value.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if fits {
        Vec::new()
    } else {
        vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
    }
}

fn path_segment(value: &str, prefix: bool) -> Vec<String> {
    let mut messages = Vec::new();
    if !prefix && (value == "." || value == "..") {
        messages.push(format!("may not be '{value}'"));
    }
    for illegal in ['/', '%'] {
        if value.contains(illegal) {
            messages.push(format!("may not contain '{illegal}'"));
        }
    }
    messages
}

fn too_long(value: &str, max: usize) -> Vec<String> {
    if value.len() > max {
        vec![format!("must be no more than {max} characters")]
    } else {
        Vec::new()
    }
}

fn is_label(value: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// Empty, or letters, digits and `-_.` between two letters or digits.
fn is_label_text(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        type Rule = fn(&str) -> Vec<String>;
        let rows: &[(&str, Rule, &str, &[&str])] = &[
            ("plain", subdomain, "a.b-c", &[]),
            (
                "upper case",
                subdomain,
                "A",
                &["a lowercase RFC 1123 subdomain must"],
            ),
            (
                "empty part",
                subdomain,
                "a..b",
                &["a lowercase RFC 1123 subdomain must"],
            ),
            (
                "long label",
                label,
                &"a".repeat(64),
                &["must be no more than 63 characters"],
            ),
            (
                "long label of wrong letters",
                label,
                &"A".repeat(64),
                &["must be no more than 63", "a lowercase RFC 1123 label must"],
            ),
            ("prefixed key", qualified_name, "example.com/a_b", &[]),
            (
                "two slashes",
                qualified_name,
                "a/b/c",
                &["a valid label key must consist"],
            ),
            (
                "empty prefix",
                qualified_name,
                "/a",
                &["prefix part must be non-empty"],
            ),
            (
                "empty name",
                qualified_name,
                "a/",
                &["name part must be non-empty", "name part must consist"],
            ),
            ("empty label value", label_value, "", &[]),
            (
                "label value with a blank",
                label_value,
                "a b",
                &["a valid label must be an empty string"],
            ),
            ("dots", config_key, "..", &["must not be '..'"]),
            (
                "slash in key",
                config_key,
                "a/b",
                &["a valid config key must"],
            ),
            ("port", port_name, "http-alt", &[]),
            (
                "port of digits",
                port_name,
                "80",
                &["must contain at least one letter"],
            ),
            (
                "long port",
                port_name,
                "abcdefghijklmnop",
                &["must be no more than 15 characters"],
            ),
            ("environment", environment_name, "a b.c", &[]),
            (
                "environment with =",
                environment_name,
                "a=b",
                &["a valid environment variable name must"],
            ),
            ("address", ip, "10.0.0.1", &[]),
            ("no address", ip, "10.0.0", &["must be a valid IP address"]),
            ("subnet", cidr, "10.0.0.0/24", &[]),
            (
                "subnet too wide",
                cidr,
                "10.0.0.0/33",
                &["must be a valid CIDR value"],
            ),
        ];
        for (what, rule, value, expected) in rows {
            let messages = rule(value);
            assert_eq!(messages.len(), expected.len(), "{what}: {messages:?}");
            for (message, start) in messages.iter().zip(*expected) {
                assert!(message.starts_with(start), "{what}: {message}");
            }
        }
    }

    #[test]
    fn prefixes_may_end_in_a_dash() {
        assert!(object_name(NameRule::Subdomain, "web-", true).is_empty());
        assert_eq!(object_name(NameRule::Subdomain, "web-", false).len(), 1);
        assert_eq!(
            object_name(NameRule::PathSegment, "a/b", false),
            ["may not contain '/'"]
        );
    }
}
