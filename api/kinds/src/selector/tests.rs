//! Rows: selectors parsed, printed, matched and refused.

use super::*;
use serde_json::json;

#[test]
fn label_selectors_parse_print_and_match() {
    let labels = json!({"tier": "front", "env": "test", "n": "5"});
    let rows = [
        ("", "", true),
        ("tier=front", "tier=front", true),
        ("tier==back", "tier==back", false),
        ("tier!=front", "tier!=front", false),
        ("other!=x", "other!=x", true),
        ("tier in (back, front)", "tier in (back,front)", true),
        ("tier notin (front)", "tier notin (front)", false),
        ("other notin (a)", "other notin (a)", true),
        ("env", "env", true),
        ("!env", "!env", false),
        ("!other , tier", "!other,tier", true),
        (" tier = front , env ", "env,tier=front", true),
        ("n>4", "n>4", true),
        ("n<5", "n<5", false),
        ("tier>1", "tier>1", false),
        ("tier=", "tier=", false),
        ("tier in ()", "tier in ()", false),
        ("tier in (,front)", "tier in (,front)", true),
        ("in in (in)", "in in (in)", false),
        ("example.com/a=b", "example.com/a=b", false),
    ];
    for (text, printed, matches) in rows {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(
            (
                selector.to_string().as_str(),
                selector.matches(Some(&labels))
            ),
            (printed, matches),
            "{text}"
        );
    }
}

#[test]
fn bad_label_selectors_are_refused_in_the_servers_words() {
    let rows = [
        (
            "tier===x",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        ("tier=a b", "found 'b', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        (
            "=x",
            "found '=', expected: !, identifier, or 'end of string'",
        ),
        (
            "a in x",
            "unable to parse requirement: found 'x' expected: '('",
        ),
        (
            "a in (x",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        (
            "a b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "-a",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            "a=-",
            "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ];
    for (text, message) in rows {
        let error = LabelSelector::parse(text).unwrap_err();
        assert_eq!(
            (error.code, error.reason, error.message.as_str()),
            (400, "BadRequest", message),
            "{text}"
        );
    }
}

#[test]
fn label_selector_objects_match_as_texts_do() {
    let labels = json!({"app": "web", "tier": "front"});
    let rows = [
        (Value::Null, Ok(("", false))),
        (json!({}), Ok(("", true))),
        (
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}),
            Ok(("app=web,tier in (back,front)", true)),
        ),
        (
            json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
            Ok(("!tier", false)),
        ),
        (
            json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]}),
            Err("\"Like\" is not a valid label selector operator"),
        ),
        (
            json!({"matchExpressions": [{"key": "tier", "operator": "In"}]}),
            Err(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
        ),
    ];
    for (object, expected) in rows {
        let found = LabelSelector::from_object(Some(&object))
            .map(|selector| (selector.to_string(), selector.matches(Some(&labels))));
        assert_eq!(
            found,
            expected
                .map(|(text, matches)| (text.to_owned(), matches))
                .map_err(str::to_owned),
            "{object}"
        );
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
        (
            "metadata.name==one,spec.nodeName=",
            Ok(("metadata.name=one,spec.nodeName=", true)),
        ),
        ("metadata.name!=one", Ok(("metadata.name!=one", false))),
        ("x=a\\,b\\=c\\\\", Ok(("x=a\\,b\\=c\\\\", true))),
        (
            "metadata.name",
            Err("invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ),
        (
            "x=a=b",
            Err("invalid field selector: unescaped character in value: 61"),
        ),
        (
            "x=\\a",
            Err("invalid field selector: invalid escape sequence: \\a"),
        ),
    ];
    for (text, expected) in rows {
        let found = FieldSelector::parse(text)
            .map(|selector| (selector.to_string(), selector.matches(value)));
        let found = found
            .as_ref()
            .map(|(text, matches)| (text.as_str(), *matches))
            .map_err(|error| error.message.as_str());
        assert_eq!(found, expected, "{text}");
    }
}
