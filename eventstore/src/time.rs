//! Points in time: milliseconds since 1970 in UTC. Read from the log's clock, never from a wall clock.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
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
    /// Each object that is written is stamped with its creation, and chrono's own way to this text is dearer than all else in a stamp.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.chrono();
        let Ok(year @ 0..=9999) = u32::try_from(time.year()) else {
            return f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true));
        };
        let mut text = *b"0000-00-00T00:00:00Z";
        for (at, number) in [
            (0, year / 100),
            (2, year % 100),
            (5, time.month()),
            (8, time.day()),
            (11, time.hour()),
            (14, time.minute()),
            (17, time.second()),
        ] {
            text[at] += (number / 10) as u8;
            text[at + 1] += (number % 10) as u8;
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
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
        for ms in (-62_200_000_000_000..=253_500_000_000_000_i64)
            .step_by(86_399_999 * 97)
            .chain([i64::MIN, i64::MAX])
        {
            let time = Time::from_ms(ms);
            let chronos = time.chrono().to_rfc3339_opts(SecondsFormat::Secs, true);
            assert_eq!(time.to_string(), chronos, "{ms}");
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
