//! Taints and tolerations. Source: Kubernetes' documentation, "Taints and Tolerations".

use crate::world::{Node, Pod, Taint, Toleration};

/// The first taint that keeps new pods away and that the pod does not tolerate.
pub fn filter(node: &Node, pod: &Pod) -> Option<String> {
    let keeps_away = |taint: &&Taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
    let taint = node.taints.iter().filter(keeps_away).find(|taint| {
        !pod.tolerations
            .iter()
            .any(|toleration| tolerates(toleration, taint))
    })?;
    Some(format!(
        "node(s) had untolerated taint {{{}: {}}}",
        taint.key, taint.value
    ))
}

/// An empty key tolerates every key, an empty effect every effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let value = match &*toleration.operator {
        "Exists" => true,
        "" | "Equal" => toleration.value == taint.value && !toleration.key.is_empty(),
        _ => false,
    };
    effect && key && value
}

/// How many PreferNoSchedule taints the pod does not tolerate.
pub fn preferred_against(node: &Node, pod: &Pod) -> i64 {
    let prefers = node
        .taints
        .iter()
        .filter(|taint| &*taint.effect == "PreferNoSchedule");
    prefers
        .filter(|taint| {
            !pod.tolerations
                .iter()
                .any(|toleration| tolerates(toleration, taint))
        })
        .count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerates_taints() {
        for (key, operator, value, effect, expected) in [
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "", "v", "", true),
            ("k", "Equal", "other", "NoSchedule", false),
            ("k", "Exists", "", "NoExecute", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("", "Equal", "v", "", false),
            ("other", "Exists", "", "", false),
        ] {
            let toleration = Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
                toleration_seconds: None,
            };
            let taint = Taint {
                key: "k".into(),
                value: "v".into(),
                effect: "NoSchedule".into(),
                time_added: None,
            };
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
