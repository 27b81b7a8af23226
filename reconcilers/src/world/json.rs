//! Reading JSON fields that may be null, and times.

use eventstore::Time;
use serde::{Deserialize, Deserializer};

/// null reads as the default: a client may write `null` for what it leaves out.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An RFC 3339 time; what can't be read as one is none.
pub(super) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.and_then(|text| Time::parse(&text)))
}

/// The time in a JSON value.
pub fn rfc3339(value: Option<&serde_json::Value>) -> Option<Time> {
    value
        .and_then(serde_json::Value::as_str)
        .and_then(Time::parse)
}

/// `{"type": …, "status": …}`: the conditions of every kind's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ConditionJson {
    #[serde(rename = "type")]
    pub name: String,
    pub status: String,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    #[serde(deserialize_with = "time")]
    pub last_transition_time: Option<Time>,
}
