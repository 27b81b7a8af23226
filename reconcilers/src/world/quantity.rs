//! Quantities, and what is asked for or offered of each resource.

use eventstore::Text;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// An amount of each resource, by its name: cpu in thousandths, everything else in whole units (bytes, pods, devices), both rounded up.
/// A resource that is not there is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<Text, i64>);

impl Resources {
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes away; a resource that comes to 0 is no longer there, so that adding and taking away end where they began.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let left = self.get(name).saturating_sub(*amount);
            if left == 0 {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), left);
            }
        }
    }

    /// The larger of each.
    pub fn max(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_insert(0);
            *most = (*most).max(*amount);
        }
    }

    pub fn without_zeros(mut self) -> Self {
        self.0.retain(|_, amount| *amount != 0);
        self
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written: Option<BTreeMap<Text, serde_json::Value>> = Option::deserialize(from)?;
        let mut resources = BTreeMap::new();
        for (name, value) in written.unwrap_or_default() {
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            let milli = quantity_milli(&text).ok_or_else(|| {
                serde::de::Error::custom(format!("{name}: {text:?} is not a quantity"))
            })?;
            let amount = if &*name == "cpu" {
                milli
            } else {
                milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) > 0)
            };
            resources.insert(name, i64::try_from(amount).unwrap_or(i64::MAX));
        }
        Ok(Self(resources))
    }
}

/// A Kubernetes quantity in thousandths, rounded up: `100m`, `1.5`, `2Gi`, `1e3`, `12E`.
/// Source: k8s.io/apimachinery/pkg/api/resource, the grammar in Quantity's documentation.
pub fn quantity_milli(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || !whole
            .chars()
            .chain(fraction.chars())
            .all(|c| c.is_ascii_digit())
        || fraction.len() > 18
    {
        return None;
    }
    // The number as `units` / 10^fraction.len().
    let units: i128 = format!("{whole}{fraction}").parse().ok()?;
    let below = 10_i128.checked_pow(fraction.len() as u32)?;
    let (times, divided) = scale(suffix)?;
    let milli = units.checked_mul(1000)?.checked_mul(times)?;
    let divisor = below.checked_mul(divided)?;
    let rounded_up = milli.div_euclid(divisor) + i128::from(milli.rem_euclid(divisor) > 0);
    Some(if negative { -rounded_up } else { rounded_up })
}

/// A suffix as (factor, divisor).
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| base.checked_pow(exponent).map(|factor| (factor, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 {
                (1, factor)
            } else {
                (factor, 1)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities() {
        for (text, milli) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("0.0001", Some(1)),
            ("1n", Some(1)),
            ("2Ki", Some(2_048_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("1E2", Some(100_000)),
            ("5e-1", Some(500)),
            ("-1", Some(-1000)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1.2.3", None),
            ("1ee", None),
        ] {
            assert_eq!(quantity_milli(text), milli, "{text}");
        }
    }
}
