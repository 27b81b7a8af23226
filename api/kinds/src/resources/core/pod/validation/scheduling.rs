//! Where a pod may go: affinity, tolerations, spreading.

use crate::resources::apps::replicaset::label_selector;
use crate::resources::checks::{Findings, items, text};
use crate::resources::names;
use serde_json::Value;

const POSITIVE: &str = "must be greater than zero";
const NO_KEY: &str = "can not be empty";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const WHEN: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];

pub fn of_pod(spec: &Value, path: &str, found: &mut Findings) {
    let (affinity, at) = (&spec["affinity"], format!("{path}.affinity"));
    node_affinity(
        &affinity["nodeAffinity"],
        &format!("{at}.nodeAffinity"),
        found,
    );
    for key in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity[key], &format!("{at}.{key}"), found);
    }
    for (index, toleration) in items(&spec["tolerations"]).iter().enumerate() {
        self::toleration(toleration, &format!("{path}.tolerations[{index}]"), found);
    }
    topology_spread(
        &spec["topologySpreadConstraints"],
        &format!("{path}.topologySpreadConstraints"),
        found,
    );
}

fn node_affinity(affinity: &Value, path: &str, found: &mut Findings) {
    let (required, at) = (
        &affinity["requiredDuringSchedulingIgnoredDuringExecution"],
        format!("{path}.requiredDuringSchedulingIgnoredDuringExecution"),
    );
    if !required.is_null() {
        let terms = items(&required["nodeSelectorTerms"]);
        if terms.is_empty() {
            found.required(
                format!("{at}.nodeSelectorTerms"),
                "must have at least one node selector term",
            );
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(term, &format!("{at}.nodeSelectorTerms[{index}]"), found);
        }
    }
    let at = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
        .iter()
        .enumerate()
    {
        weight(&term["weight"], format!("{at}[{index}].weight"), found);
        node_term(
            &term["preference"],
            &format!("{at}[{index}].preference"),
            found,
        );
    }
}

fn node_term(term: &Value, path: &str, found: &mut Findings) {
    for (index, requirement) in items(&term["matchExpressions"]).iter().enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        let values = items(&requirement["values"]).len();
        match text(&requirement["operator"]) {
            "In" | "NotIn" if values == 0 => {
                found.required(
                    format!("{at}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                found.forbidden(
                    format!("{at}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values != 1 => {
                found.required(
                    format!("{at}.values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            operator => found.invalid(
                format!("{at}.operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        let key = text(&requirement["key"]);
        found.all(&format!("{at}.key"), key, names::qualified_name(key));
    }
    for (index, requirement) in items(&term["matchFields"]).iter().enumerate() {
        let at = format!("{path}.matchFields[{index}]");
        match text(&requirement["operator"]) {
            "In" | "NotIn" => {
                if items(&requirement["values"]).len() != 1 {
                    found.required(
                        format!("{at}.values"),
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                    );
                }
            }
            operator => found.invalid(
                format!("{at}.operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        if requirement["key"] != "metadata.name" {
            found.invalid(
                format!("{at}.key"),
                requirement["key"].clone(),
                "not a valid field selector key",
            );
        }
    }
}

fn pod_affinity(affinity: &Value, path: &str, found: &mut Findings) {
    for (index, term) in items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"])
        .iter()
        .enumerate()
    {
        pod_term(
            term,
            &format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"),
            found,
        );
    }
    for (index, term) in items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
        .iter()
        .enumerate()
    {
        let at = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        weight(&term["weight"], format!("{at}.weight"), found);
        pod_term(
            &term["podAffinityTerm"],
            &format!("{at}.podAffinityTerm"),
            found,
        );
    }
}

fn pod_term(term: &Value, path: &str, found: &mut Findings) {
    for key in ["labelSelector", "namespaceSelector"] {
        if !term[key].is_null() {
            label_selector(&term[key], &format!("{path}.{key}"), found);
        }
    }
    for namespace in items(&term["namespaces"]) {
        found.all(
            &format!("{path}.namespace"),
            text(namespace),
            names::label(text(namespace)),
        );
    }
    topology_key(&term["topologyKey"], format!("{path}.topologyKey"), found);
}

fn topology_key(key: &Value, path: String, found: &mut Findings) {
    match text(key) {
        "" => found.required(path, NO_KEY),
        key => found.all(&path, key, names::qualified_name(key)),
    }
}

fn weight(weight: &Value, path: String, found: &mut Findings) {
    if !weight
        .as_i64()
        .is_some_and(|weight| (1..=100).contains(&weight))
    {
        found.invalid(
            path,
            weight.as_i64().unwrap_or_default(),
            "must be in the range 1-100",
        );
    }
}

fn toleration(toleration: &Value, path: &str, found: &mut Findings) {
    let (key, operator, value, effect) = (
        text(&toleration["key"]),
        text(&toleration["operator"]),
        text(&toleration["value"]),
        text(&toleration["effect"]),
    );
    if !key.is_empty() {
        found.all(&format!("{path}.key"), key, names::qualified_name(key));
    }
    if key.is_empty() && operator != "Exists" {
        found.invalid(
            format!("{path}.operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        found.invalid(
            format!("{path}.effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
    match operator {
        "Equal" | "" => {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                found.invalid(format!("{path}.operator"), value, messages.join(";"));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                found.invalid(
                    format!("{path}.operator"),
                    toleration.clone(),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
        }
        other => found.not_supported(format!("{path}.operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        found.not_supported(format!("{path}.effect"), effect, EFFECTS);
    }
}

fn topology_spread(constraints: &Value, path: &str, found: &mut Findings) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, constraint) in items(constraints).iter().enumerate() {
        let at = format!("{path}[{index}]");
        let when = text(&constraint["whenUnsatisfiable"]);
        if constraint["maxSkew"].as_i64().unwrap_or_default() <= 0 {
            found.invalid(
                format!("{at}.maxSkew"),
                constraint["maxSkew"].as_i64().unwrap_or_default(),
                POSITIVE,
            );
        }
        topology_key(
            &constraint["topologyKey"],
            format!("{at}.topologyKey"),
            found,
        );
        if !WHEN.contains(&when) {
            found.not_supported(format!("{at}.whenUnsatisfiable"), when, WHEN);
        }
        let pair = (text(&constraint["topologyKey"]), when);
        if seen.contains(&pair) {
            found.duplicate(
                format!("{at}.{{topologyKey, whenUnsatisfiable}}"),
                format!("{{{}, {}}}", pair.0, pair.1),
            );
        }
        seen.push(pair);
        if let Some(domains) = constraint["minDomains"].as_i64() {
            if domains <= 0 {
                found.invalid(format!("{at}.minDomains"), domains, POSITIVE);
            } else if when != "DoNotSchedule" {
                found.invalid(
                    format!("{at}.minDomains"),
                    domains,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                    ),
                );
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint[key].as_str()
                && !matches!(policy, "Honor" | "Ignore")
            {
                found.not_supported(format!("{at}.{key}"), policy, &["Honor", "Ignore"]);
            }
        }
        if !constraint["labelSelector"].is_null() {
            label_selector(
                &constraint["labelSelector"],
                &format!("{at}.labelSelector"),
                found,
            );
        }
    }
}
