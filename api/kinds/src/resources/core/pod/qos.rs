//! How a pod is treated when its node runs short: by whether it says what it needs (Kubernetes: `ComputePodQOS`).

use crate::quantity::Quantity;
use crate::resources::checks::{entries, items, text};
use serde_json::Value;

const COUNTED: &[&str] = &["cpu", "memory"];

/// `Guaranteed`: each container's limits are its requests; `BestEffort`: nobody says anything; else `Burstable`.
pub fn class(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = if entries(&spec["resources"]).next().is_some() {
        // A pod that speaks for all its containers is taken at its word.
        vec![spec]
    } else {
        ["containers", "initContainers"]
            .iter()
            .flat_map(|key| items(&spec[*key]))
            .collect()
    };
    let mut says_something = false;
    let mut guaranteed = true;
    for container in containers {
        let said = |kind: &str, name: &str| amount(&container["resources"][kind][name]);
        for name in COUNTED {
            let (request, limit) = (said("requests", name), said("limits", name));
            says_something |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request == limit || request.is_none());
        }
    }
    match (says_something, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(quantity: &Value) -> Option<Quantity> {
    let amount = match quantity {
        Value::Number(number) => Quantity::parse(&number.to_string()).ok()?,
        other => Quantity::parse(text(other)).ok()?,
    };
    (!amount.is_zero()).then_some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let rows = [
            (json!({"containers": [{}]}), "BestEffort"),
            (
                json!({"containers": [{"resources": {"limits": both}}]}),
                "Guaranteed",
            ),
            (
                json!({"containers": [{"resources": {"limits": both, "requests": {"cpu": "1000m", "memory": "1024Mi"}}}]}),
                "Guaranteed",
            ),
            (
                json!({"containers": [{"resources": {"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}}]}),
                "Burstable",
            ),
            (
                json!({"containers": [{"resources": {"limits": both}}, {}]}),
                "Burstable",
            ),
            (
                json!({"containers": [{"resources": {"requests": {"cpu": "0"}}}]}),
                "BestEffort",
            ),
            (
                json!({"containers": [{"resources": {"limits": both}}], "initContainers": [{"resources": {"requests": {"cpu": "1"}}}]}),
                "Burstable",
            ),
            (
                json!({"containers": [{}], "resources": {"limits": both}}),
                "Guaranteed",
            ),
        ];
        for (spec, expected) in rows {
            assert_eq!(class(&spec), expected, "{spec}");
        }
    }
}
