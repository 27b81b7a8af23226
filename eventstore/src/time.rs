//! Points in time: milliseconds since 1970 in UTC. Read from the log's clock, never from a wall clock.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds since the Unix epoch, UTC. Prints as RFC 3339 with seconds, as Kubernetes prints `metav1.Time`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub i64);

impl Time {
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn from_s(s: i64) -> Self {
        Self(s.saturating_mul(1000))
    }

    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down: what a stamp keeps.
    pub const fn s(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub const fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads RFC 3339: `2026-11-21T08:00:00Z`, with an optional fraction and `Z`, `+hh:mm` or `-hh:mm`.
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| Self(time.timestamp_millis()))
    }

    /// RFC 3339 with microseconds, as Kubernetes prints `metav1.MicroTime`.
    pub fn micro(self) -> String {
        self.chrono().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// RFC 3339 with milliseconds: for people who read history.
    pub fn milli(self) -> String {
        self.chrono().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    fn chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chrono().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, ms, printed) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            (
                "2026-11-21T08:46:00Z",
                1_795_250_760_000,
                "2026-11-21T08:46:00Z",
            ),
            (
                "2024-02-29T23:59:59.5+01:00",
                1_709_247_599_500,
                "2024-02-29T22:59:59Z",
            ),
            ("1969-12-31T23:59:59.25Z", -750, "1969-12-31T23:59:59Z"),
        ] {
            let time = Time::parse(text).unwrap();
            assert_eq!(
                (time.ms(), time.to_string().as_str()),
                (ms, printed),
                "{text}"
            );
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00Z",
            "2026-11-21T08:46:00",
            "2026-11-21T24:00:00Z",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }
}
