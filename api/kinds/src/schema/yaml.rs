//! YAML bodies, read as Kubernetes reads them: YAML 1.1 booleans and octals, the first document alone; the last of repeated
//! keys counts, and is told under strict validation.
//!
//! JSON is YAML, and most of what comes as YAML is JSON (kubectl's server-side apply), so that is tried first. Depth,
//! anchors and their expansion are bounded by the parser's own budget.

use super::json;
use crate::error::go_quote;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options};

/// The value, and what strict validation has against it. The error is that of the conversion to JSON.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    if text.trim_ascii_start().starts_with(b"{")
        && let Ok(parsed) = json::parse(text)
    {
        let tell = |path: &String| format!("duplicate field {}", go_quote(path));
        return Ok((parsed.value, parsed.duplicates.iter().map(tell).collect()));
    }
    let text = std::str::from_utf8(text)
        .map_err(|_| convert_error("control characters are not allowed"))?;
    let mut value =
        first(text, DuplicateKeyPolicy::LastWins).map_err(|error| convert_error(&error))?;
    whole_numbers(&mut value);
    let repeated = first(text, DuplicateKeyPolicy::Error).err();
    let tell = |error| format!("yaml: unmarshal errors:\n  {error}");
    Ok((value, repeated.map(tell).into_iter().collect()))
}

fn first(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Value, String> {
    let options: Options =
        serde_saphyr::options! { duplicate_keys: duplicate_keys, legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| one_line(&error))?;
    Ok(documents.into_iter().next().unwrap_or_default())
}

fn convert_error(text: &str) -> String {
    format!("error converting YAML to JSON: yaml: {text}")
}

/// The parser tells the place after its text and draws it over several lines; a Status has room for one.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or_default();
    let line = error
        .location()
        .map(|location| format!("line {}: ", location.line()));
    format!("{}{text}", line.unwrap_or_default())
}

/// `1.0` is written as `1` in JSON, which an integer field takes.
fn whole_numbers(value: &mut Value) {
    /// Above this a float no longer tells one whole number from the next.
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| {
                number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT_BELOW
            });
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_becomes_json_as_kubernetes_makes_it() {
        let bomb: String = (1..12)
            .map(|n| {
                format!(
                    "a{n}: &a{n} [{}]\n",
                    vec![format!("*a{}", n - 1); 9].join(",")
                )
            })
            .collect();
        let bomb = format!("a0: &a0 [x, x, x, x]\n{bomb}");
        let deep = "[".repeat(100_000);
        let rows: [(&str, Result<Value, &str>); 12] = [
            (
                "a: 0x10\nb: 010\nc: ~\nd: 2001-01-01\ne: 1.0\nf: .5\ng: on\nh: 'on'\n",
                Ok(
                    json!({"a": 16, "b": 8, "c": null, "d": "2001-01-01", "e": 1, "f": 0.5, "g": true, "h": "on"}),
                ),
            ),
            (
                "data:\n  1: a\n  true: b\n",
                Ok(json!({"data": {"1": "a", "true": "b"}})),
            ),
            ("---\na: 1\n---\nb: 2\n", Ok(json!({"a": 1}))),
            ("a: &x [1]\nb: *x\n", Ok(json!({"a": [1], "b": [1]}))),
            ("{\"a\": 1}", Ok(json!({"a": 1}))),
            ("", Ok(Value::Null)),
            ("a: b: c", Err("line 1: ")),
            ("a: 1\n  b: 2\n", Err("line 2: ")),
            ("a: [", Err("line 1: ")),
            ("{broken", Err("line 1: ")),
            (&bomb, Err("line 6: budget breached")),
            (&deep, Err("line 1: recursion limit exceeded")),
        ];
        for (text, expected) in rows {
            match (parse(text.as_bytes()), expected) {
                (Ok((value, repeated)), Ok(expected)) => {
                    assert_eq!((value, repeated), (expected, vec![]), "{text}")
                }
                (Err(error), Err(expected)) => {
                    let expected = convert_error(expected);
                    assert!(
                        error.starts_with(&expected) && !error.contains('\n'),
                        "{text:.40}: {error}"
                    );
                }
                (found, expected) => panic!("{text:.40}: {found:?}, expected {expected:?}"),
            }
        }
        let (value, repeated) = parse(b"a: 1\na: 2\n").unwrap();
        assert_eq!((value, repeated.len()), (json!({"a": 2}), 1));
    }
}
