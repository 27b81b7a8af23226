//! Label selectors: `matchLabels` and `matchExpressions`, and the operators of node selectors.

use super::json::or_default;
use eventstore::Text;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A `metav1.LabelSelector`. One without any requirement matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    #[serde(deserialize_with = "or_default")]
    pub match_labels: BTreeMap<Text, Text>,
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Requirement {
    pub key: Text,
    pub operator: Operator,
    #[serde(default, deserialize_with = "or_default")]
    pub values: Vec<Text>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// Node selectors only: the label and the one value are integers.
    Gt,
    Lt,
}

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<Text, Text>) -> bool {
        self.match_labels
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }

    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl Requirement {
    /// Whether it holds of a label's value. `NotIn` holds of a label that is not there, as in Kubernetes.
    pub fn holds(&self, value: Option<&Text>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self
                .compare(value)
                .is_some_and(|(left, right)| left > right),
            Operator::Lt => self
                .compare(value)
                .is_some_and(|(left, right)| left < right),
        }
    }

    fn compare(&self, value: Option<&Text>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn matches() {
        let labels: BTreeMap<Text, Text> = [("app", "web"), ("tier", "5")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["4"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Lt", "values": ["5"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "Gt", "values": ["4"]}]}),
                false,
            ),
        ] {
            check(selector, &labels, expected);
        }
    }

    fn check(selector: Value, labels: &BTreeMap<Text, Text>, expected: bool) {
        let read: Selector = serde_json::from_value(selector.clone()).unwrap();
        assert_eq!(read.matches(labels), expected, "{selector}");
    }
}
