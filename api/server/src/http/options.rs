//! What a request's query says of how to read or write: dry run, field manager, field validation, durations.

use super::Call;
use super::query::options_invalid;
use http::header;
use kinds::error::{FieldError, StatusError};
use kinds::patch::managed::manager_name;
use kinds::schema::decode::FieldValidation;
use std::time::Duration;

/// The longest name of a field manager (Kubernetes: `FieldManagerMaxLength`).
const MANAGER_CHARS_MAX: usize = kinds::patch::managed::MAX_MANAGER_BYTES;

/// Of a write.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub manager: String,
    /// It was named, and not made of the user agent.
    pub names_manager: bool,
    pub validation: FieldValidation,
}

impl WriteOptions {
    /// `kind` is what Kubernetes calls the query as an object: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub fn read(call: &Call, kind: &str) -> Result<Self, StatusError> {
        let validation = FieldValidation::parse(call.query.text("fieldValidation"), kind)?;
        let dry_run = call.query.dry_run(kind)?;
        let named = call.query.text("fieldManager");
        if named.chars().count() > MANAGER_CHARS_MAX {
            return Err(options_invalid(
                kind,
                &[FieldError::too_long("fieldManager", MANAGER_CHARS_MAX)],
            ));
        }
        if let Some(bad) = named.chars().find(|c| c.is_control()) {
            return Err(options_invalid(
                kind,
                &[FieldError::invalid(
                    "fieldManager",
                    named,
                    format!("should only contain printable characters, found {bad:?}"),
                )],
            ));
        }
        let manager = manager_name(named, &super::text(&call.headers, header::USER_AGENT));
        Ok(Self {
            dry_run,
            manager,
            names_manager: !named.is_empty(),
            validation,
        })
    }
}

/// A duration as Go writes it: `30s`, `1m30s`, `1.5h`, or plain seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| number + end);
        let seconds = match &rest[number..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += rest[..number].parse::<f64>().ok()? * seconds;
        rest = &rest[unit_end..];
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(total).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_gos() {
        let rows = [
            ("32s", Some(32_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("10", Some(10_000)),
            ("0s", Some(0)),
            ("", None),
            ("5x", None),
            ("s", None),
        ];
        for (text, ms) in rows {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }
}
