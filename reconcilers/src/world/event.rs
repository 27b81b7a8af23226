//! What decisions read of an Event (core/v1): how often and when it was last seen.

use super::json::{or_default, time};
use super::thing::Read;
use eventstore::Time;
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub count: i64,
    /// The latest of lastTimestamp, series.lastObservedTime and eventTime.
    pub last_seen: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EventJson {
    #[serde(deserialize_with = "or_default")]
    count: i64,
    #[serde(deserialize_with = "time")]
    last_timestamp: Option<Time>,
    #[serde(deserialize_with = "time")]
    event_time: Option<Time>,
    #[serde(deserialize_with = "or_default")]
    series: SeriesJson,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SeriesJson {
    #[serde(deserialize_with = "time")]
    last_observed_time: Option<Time>,
}

impl Read for Event {
    type Json = EventJson;

    fn of(json: EventJson) -> Self {
        Self {
            count: json.count,
            last_seen: json
                .last_timestamp
                .max(json.event_time)
                .max(json.series.last_observed_time),
        }
    }
}
