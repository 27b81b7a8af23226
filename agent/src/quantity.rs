//! Reads Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as thousandths, which is as fine as an agent needs. Writing them in canonical
//! form is the API's business.

use serde_json::Value;

/// The quantity in thousandths of its unit, rounded up; `None` if it is none.
pub fn milli(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

/// The quantity in whole units, rounded up.
pub fn whole(value: &Value) -> Option<i64> {
    milli(value).map(|milli| milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) != 0))
}

fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: f64 = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(digits.parse().ok()?)
        }
    };
    let number: f64 = number.parse().ok()?;
    // The casts saturate: past 2^63 thousandths a quantity is "as much as there is".
    Some((number * factor * 1000.0 - 1e-6).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities() {
        for (value, expected) in [
            (json!("100m"), Some(100)),
            (json!("1"), Some(1000)),
            (json!(2), Some(2000)),
            (json!("0.5"), Some(500)),
            (json!("64Mi"), Some(64 * 1024 * 1024 * 1000)),
            (json!("1k"), Some(1_000_000)),
            (json!("2e3"), Some(2_000_000)),
            (json!("1E"), Some(i64::MAX)),
            (json!("1u"), Some(1)),
            (json!("x"), None),
            (json!(""), None),
        ] {
            assert_eq!(milli(&value), expected, "{value}");
        }
        assert_eq!(whole(&json!("1500m")), Some(2));
    }
}
