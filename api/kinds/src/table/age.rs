//! How long ago, in the few letters that Kubernetes spends on it (apimachinery `duration.HumanDuration`): the older, the coarser.

use chrono::DateTime;
use serde_json::Value;

/// The age of an RFC 3339 time; `<unknown>` if there is none.
pub fn since(time: &Value, now_ms: i64) -> String {
    match time.as_str().and_then(millis) {
        Some(then) => human(now_ms - then),
        None => "<unknown>".to_owned(),
    }
}

/// Milliseconds since 1970 of an RFC 3339 time.
pub fn millis(time: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(time)
        .ok()
        .map(|time| time.timestamp_millis())
}

/// `45s`, `3m20s`, `25m`, `4h10m`, `30h`, `3d4h`, `20d`, `2y30d`
pub fn human(duration_ms: i64) -> String {
    let seconds = duration_ms / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match (seconds, minutes, hours) {
        // A clock that is behind by a second or so is no news.
        (..-1, ..) => "<invalid>".to_owned(),
        (..0, ..) => "0s".to_owned(),
        (..120, ..) => format!("{seconds}s"),
        (_, ..10, _) => two(minutes, "m", seconds % 60, "s"),
        (_, ..180, _) => format!("{minutes}m"),
        (.., ..8) => two(hours, "h", minutes % 60, "m"),
        (.., ..48) => format!("{hours}h"),
        (.., ..192) => two(hours / 24, "d", hours % 24, "h"),
        (.., ..17520) => format!("{}d", hours / 24),
        (.., ..70080) => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        let rows = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (3 * MINUTE + 20, "3m20s"),
            (10 * MINUTE + 20, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + 59 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (7 * DAY + 5 * HOUR, "7d5h"),
            (8 * DAY + 5 * HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (800 * DAY, "2y70d"),
            (3000 * DAY, "8y"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(human(seconds * 1000), expected, "{seconds} s");
        }
        assert_eq!(since(&Value::Null, 0), "<unknown>");
        assert_eq!(since(&Value::from("1970-01-01T00:00:05Z"), 50_000), "45s");
        assert_eq!(
            since(&Value::from("1970-01-01T00:00:05.000001Z"), 50_001),
            "45s"
        );
    }
}
