//! YAML bodies, read as Kubernetes reads them: YAML 1.1 booleans, the last of repeated keys counts and is told under strict validation.
//!
//! JSON is YAML, and most of what comes as YAML is JSON (kubectl's server-side apply), so that is tried first.

use super::json;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

/// The value, and what strict validation has against it. The error is that of the conversion to JSON.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    if text.trim_ascii_start().starts_with(b"{")
        && let Ok(parsed) = json::parse(text)
    {
        let tell = |path: &String| format!("duplicate field {}", crate::error::go_quote(path));
        return Ok((parsed.value, parsed.duplicates.iter().map(tell).collect()));
    }
    let text = std::str::from_utf8(text)
        .map_err(|_| convert_error("control characters are not allowed"))?;
    let value: Value = serde_saphyr::from_str_with_options(
        text,
        serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins },
    )
    .map_err(|error| convert_error(&first_line(&error)))?;
    let again: Result<Value, _> = serde_saphyr::from_str_with_options(
        text,
        serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::Error },
    );
    let repeated = again
        .err()
        .map(|error| format!("yaml: unmarshal errors:\n  {}", first_line(&error)));
    Ok((value, repeated.into_iter().collect()))
}

fn convert_error(text: &str) -> String {
    format!("error converting YAML to JSON: yaml: {text}")
}

/// The parser draws the place with an arrow over several lines; a Status has room for one.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = error
        .location()
        .map(|location| format!("line {}: ", location.line()))
        .unwrap_or_default();
    format!("{line}{}", text.lines().next().unwrap_or_default())
}
