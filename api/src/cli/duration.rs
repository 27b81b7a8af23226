//! Durations as flags give them: `40`, `40s`, `5m`, `1h`, `90d`. Whole seconds, for that is what they are compared in.

/// Seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| {
        format!("'{text}' is no duration: give seconds, or a number with s, m, h or d")
    })?;
    let unit_s = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("'{unit}' is no unit of time: use s, m, h or d")),
    };
    number
        .checked_mul(unit_s)
        .ok_or_else(|| format!("'{text}' is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(seconds(text).ok(), expected, "{text}");
        check("40", Some(40));
        check("40s", Some(40));
        check("5m", Some(300));
        check("1h", Some(3_600));
        check("0", Some(0));
        check("", None);
        check("s", None);
        check("4 s", None);
        check("4d", Some(345_600));
        check("4w", None);
        check("-4s", None);
        check("99999999999999999999s", None);
        check("9999999999999999999h", None);
    }
}
