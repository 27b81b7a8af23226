//! Kubernetes quantities (`500m`, `1Gi`, `2e3`): parse, compare, add, subtract, print canonically.
//!
//! A quantity is a number of billionths and the family of suffixes it was written in, which it is printed in again. What was
//! already canonical keeps its text, as kube-apiserver keeps it. Never a floating point number.
//! Source: k8s.io/apimachinery `resource.Quantity` and its documentation.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

#[derive(Clone, Debug)]
pub struct Quantity {
    /// The value times 10^9.
    nanos: i128,
    format: Format,
    /// The text it was read from, where that counts as canonical.
    text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `m`, none, `k`, `M` …
    DecimalSi,
    /// `Ki`, `Mi` …
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANOS: i128 = 1_000_000_000;
const MILLI_NANOS: i128 = 1_000_000;
/// Digits that kube-apiserver keeps in its integer form, in which a canonical text is kept as it was.
const INTEGER_DIGITS: i64 = 18;
/// Kubernetes caps a binary quantity at 2^63 - 1.
const MAX_BINARY: i128 = i64::MAX as i128 * NANOS;
/// Above this a value no longer fits our billionths; it is capped (10^29, where an exabyte is 10^18).
const MAX_DIGITS: i64 = 29;

const DECIMAL: [(&str, i64); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, i64); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// A quantity's text in parts: `-12.50Mi` is negative, `12`, `50`, `Mi`.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = split(text)?;
        let (format, exponent) = interpret(parts.suffix)?;
        let digits = (parts.whole.len() + parts.fraction.len()) as i64;
        let scale = (if format == Format::BinarySi {
            0
        } else {
            exponent
        }) - parts.fraction.len() as i64;
        let keeps_text = match format {
            Format::BinarySi => {
                let room = 15 - parts.whole.len() as i64 - exponent * 3 / 10 - 1;
                let low = parts.whole.parse::<i64>().unwrap_or(0);
                parts.fraction.is_empty() && room >= 0 && low & 7 != 0
            }
            _ => {
                digits <= INTEGER_DIGITS
                    && scale >= -9
                    && scale % 3 == 0
                    && !parts.whole.starts_with('0')
                    && !ends_in_thousands(&parts)
            }
        };
        let magnitude = magnitude(&parts, format, exponent);
        let tiny = format == Format::BinarySi && magnitude > 0 && magnitude < NANOS;
        Ok(Self {
            nanos: if parts.negative {
                -magnitude
            } else {
                magnitude
            },
            format: if tiny { Format::DecimalSi } else { format },
            text: keeps_text.then(|| text.to_owned()),
        })
    }

    pub fn zero() -> Self {
        Self {
            nanos: 0,
            format: Format::DecimalSi,
            text: None,
        }
    }

    /// A whole number of units, decimal.
    pub fn units(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * NANOS,
            format: Format::DecimalSi,
            text: None,
        }
    }

    /// A number of thousandths, decimal: CPU.
    pub fn milli(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * MILLI_NANOS,
            format: Format::DecimalSi,
            text: None,
        }
    }

    /// A whole number of bytes, printed in binary suffixes.
    pub fn bytes(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * NANOS,
            format: Format::BinarySi,
            text: None,
        }
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whole units, rounded away from zero (Kubernetes: `Value`).
    pub fn value(&self) -> i64 {
        round_away(self.nanos, NANOS)
    }

    /// Thousandths, rounded away from zero (Kubernetes: `MilliValue`).
    pub fn milli_value(&self) -> i64 {
        round_away(self.nanos, MILLI_NANOS)
    }

    pub fn add(&self, other: &Self) -> Self {
        self.combined(other, self.nanos.saturating_add(other.nanos))
    }

    pub fn sub(&self, other: &Self) -> Self {
        self.combined(other, self.nanos.saturating_sub(other.nanos))
    }

    /// A sum is printed as its first summand was, or its second where the first was zero.
    fn combined(&self, other: &Self, nanos: i128) -> Self {
        Self {
            nanos,
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
            text: None,
        }
    }

    fn fmt_decimal(&self, f: &mut fmt::Formatter<'_>, exponential: bool) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while exponent < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        if exponential {
            return if exponent == 0 {
                write!(f, "{mantissa}")
            } else {
                write!(f, "{mantissa}e{exponent}")
            };
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, e)| *e == exponent)
            .map_or("", |(suffix, _)| suffix);
        write!(f, "{mantissa}{suffix}")
    }

    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut suffix) = (self.nanos / NANOS, "");
        for (name, _) in BINARY {
            if mantissa % 1024 != 0 {
                break;
            }
            mantissa /= 1024;
            suffix = name;
        }
        write!(f, "{mantissa}{suffix}")
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            // Bytes that are few or not whole lose nothing when they are printed in decimal.
            Format::BinarySi if small || self.nanos % NANOS != 0 => self.fmt_decimal(f, false),
            Format::BinarySi => self.fmt_binary(f),
            Format::DecimalSi => self.fmt_decimal(f, false),
            Format::DecimalExponent => self.fmt_decimal(f, true),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (negative, rest) = match text.as_bytes() {
        [] => return Err(QuantityError::Format),
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (_, rest) = take(rest, |c| c == b'0');
    let (whole, rest) = take(rest, |c| c.is_ascii_digit());
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => take(rest, |c| c.is_ascii_digit()),
        None => ("", rest),
    };
    let suffix = rest;
    let (_, rest) = take(rest, |c| b"eEinumkKMGTP".contains(&c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    let (_, rest) = take(rest, |c| c.is_ascii_digit());
    if !rest.is_empty() {
        return Err(QuantityError::Format);
    }
    Ok(Parts {
        negative,
        whole: if whole.is_empty() { "0" } else { whole },
        fraction,
        suffix,
    })
}

fn take(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn interpret(suffix: &str) -> Result<(Format, i64), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, *exponent));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, *exponent));
    }
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .and_then(|digits| digits.parse::<i32>().ok());
    exponent
        .map(|exponent| (Format::DecimalExponent, i64::from(exponent)))
        .ok_or(QuantityError::Suffix)
}

fn ends_in_thousands(parts: &Parts<'_>) -> bool {
    format!("{}{}", parts.whole, parts.fraction).ends_with("000")
}

/// The value without its sign, in billionths; what is finer is rounded up, what is larger than we hold is capped.
fn magnitude(parts: &Parts<'_>, format: Format, exponent: i64) -> i128 {
    let digits = format!("{}{}", parts.whole, parts.fraction);
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let cap = 10_i128.pow(MAX_DIGITS as u32).saturating_mul(NANOS);
    if format == Format::BinarySi {
        let Ok(mantissa) = digits.parse::<i128>() else {
            return MAX_BINARY;
        };
        let Some(product) = mantissa.checked_mul(1_i128 << exponent) else {
            return MAX_BINARY;
        };
        return shifted(product, 9 - parts.fraction.len() as i64)
            .map_or(MAX_BINARY, |value| value.min(MAX_BINARY));
    }
    let scale = exponent - parts.fraction.len() as i64;
    if digits.len() as i64 + scale > MAX_DIGITS {
        return cap;
    }
    // Digits below a billionth only say whether to round up.
    let kept = (digits.len() as i64 + scale + 9).clamp(0, digits.len() as i64) as usize;
    let (front, back) = digits.split_at(kept);
    let mantissa = front.parse::<i128>().unwrap_or(0);
    let up = i128::from(back.bytes().any(|digit| digit != b'0'));
    shifted(mantissa, scale + 9 + back.len() as i64).map_or(cap, |value| value + up)
}

/// mantissa × 10^power, rounded up; None when it does not fit.
fn shifted(mantissa: i128, power: i64) -> Option<i128> {
    if power >= 0 {
        return 10_i128
            .checked_pow(u32::try_from(power).ok()?)?
            .checked_mul(mantissa);
    }
    let divisor = u32::try_from(-power)
        .ok()
        .and_then(|power| 10_i128.checked_pow(power));
    let Some(divisor) = divisor else {
        return Some(i128::from(mantissa != 0));
    };
    Some(mantissa / divisor + i128::from(mantissa % divisor != 0))
}

fn round_away(nanos: i128, unit: i128) -> i64 {
    let rounded = nanos / unit + if nanos % unit == 0 { 0 } else { nanos.signum() };
    rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
