//! Bytes and times: what of their texts Kubernetes takes, in which form it writes them, and how it refuses the rest.

use crate::error::go_quote;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, SecondsFormat, Utc};

/// Kubernetes reads base64 loosely: stray bits in the last symbol do no harm.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Base64 in its one form.
pub(super) fn bytes(text: &str) -> Result<String, String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let raw = BASE64.decode(&joined).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                joined.len() / 4 * 4
            }
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    Ok(BASE64.encode(raw))
}

/// A time in its one form; None for Go's zero time, which is written as null.
pub(super) fn time(text: &str, micro: bool) -> Result<Option<String>, String> {
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    check_time(text, layout, micro)?;
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| format!("parsing time {}: day out of range", go_quote(text)))?;
    let time = time.with_timezone(&Utc);
    let shown = time.to_rfc3339_opts(
        if micro {
            SecondsFormat::Micros
        } else {
            SecondsFormat::Secs
        },
        true,
    );
    Ok((!shown.starts_with("0001-01-01T00:00:00")).then_some(shown))
}

/// Go's complaint about the first part of the text that does not fit the layout.
fn check_time(text: &str, layout: &str, micro: bool) -> Result<(), String> {
    let cannot = |rest: &str, part: &str| {
        Err(format!(
            "parsing time {} as {}: cannot parse {} as {}",
            go_quote(text),
            go_quote(layout),
            go_quote(rest),
            go_quote(part)
        ))
    };
    let mut rest = text;
    let parts = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    let limits = [
        ("month", "01", 1, 12),
        ("day", "02", 1, 31),
        ("hour", "15", 0, 23),
        ("minute", "04", 0, 59),
        ("second", "05", 0, 59),
    ];
    for (part, digits) in parts {
        if digits == 0 {
            let Some(after) = rest.strip_prefix(part) else {
                return cannot(rest, part);
            };
            rest = after;
            continue;
        }
        let number = rest
            .get(..digits)
            .filter(|number| number.bytes().all(|c| c.is_ascii_digit()));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            return cannot(rest, part);
        };
        if let Some((name, ..)) = limits
            .iter()
            .find(|limit| limit.1 == part && !(limit.2..=limit.3).contains(&number))
        {
            return Err(format!(
                "parsing time {}: {name} out of range",
                go_quote(text)
            ));
        }
        rest = &rest[digits..];
    }
    let fraction = rest
        .strip_prefix('.')
        .map(|rest| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    match fraction {
        Some(digits) if digits > 0 && (!micro || digits == 6) => rest = &rest[1 + digits..],
        _ if micro => return cannot(rest, ".000000"),
        _ => {}
    }
    let zone = rest.as_bytes();
    let offset = zone.len() == 6
        && matches!(zone[0], b'+' | b'-')
        && zone[3] == b':'
        && [1, 2, 4, 5].iter().all(|at| zone[*at].is_ascii_digit());
    if rest == "Z" || offset {
        return Ok(());
    }
    match rest.strip_prefix('Z') {
        Some(extra) => Err(format!(
            "parsing time {}: extra text: {}",
            go_quote(text),
            go_quote(extra)
        )),
        None => cannot(rest, "Z07:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_form_and_gos_complaints() {
        let rows = [
            (
                "2024-01-02T03:04:05Z",
                false,
                Ok(Some("2024-01-02T03:04:05Z")),
            ),
            (
                "2024-01-02T03:04:05.999+01:30",
                false,
                Ok(Some("2024-01-02T01:34:05Z")),
            ),
            ("0001-01-01T00:00:00Z", false, Ok(None)),
            (
                "2024-01-02T03:04:05.123456Z",
                true,
                Ok(Some("2024-01-02T03:04:05.123456Z")),
            ),
            (
                "",
                false,
                Err(
                    "parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\"",
                ),
            ),
            (
                "2024-13-02T03:04:05Z",
                false,
                Err("parsing time \"2024-13-02T03:04:05Z\": month out of range"),
            ),
            (
                "2024-02-30T03:04:05Z",
                false,
                Err("parsing time \"2024-02-30T03:04:05Z\": day out of range"),
            ),
            (
                "2024-01-02 03:04:05Z",
                false,
                Err(
                    "parsing time \"2024-01-02 03:04:05Z\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \" 03:04:05Z\" as \"T\"",
                ),
            ),
            (
                "2024-01-02T03:04:05",
                false,
                Err(
                    "parsing time \"2024-01-02T03:04:05\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"Z07:00\"",
                ),
            ),
            (
                "2024-01-02T03:04:05Zx",
                false,
                Err("parsing time \"2024-01-02T03:04:05Zx\": extra text: \"x\""),
            ),
            (
                "2024-01-02T03:04:05Z",
                true,
                Err(
                    "parsing time \"2024-01-02T03:04:05Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\"",
                ),
            ),
        ];
        for (text, micro, expected) in rows {
            let found = time(text, micro);
            let found = found.as_ref().map(Option::as_deref).map_err(String::as_str);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn bytes_have_one_form() {
        let rows = [
            ("aGk=", Ok("aGk=")),
            ("", Ok("")),
            ("aG\nk=", Ok("aGk=")),
            ("a!bc", Err("illegal base64 data at input byte 1")),
            ("aGk", Err("illegal base64 data at input byte 0")),
        ];
        for (text, expected) in rows {
            let found = bytes(text);
            assert_eq!(
                found.as_ref().map(String::as_str).map_err(String::as_str),
                expected,
                "{text}"
            );
        }
    }
}
