//! `spec.unschedulable`: a cordoned node takes no new pods, but those that tolerate its taint.

use super::tolerates;
use crate::world::{Node, Pod, Taint};

pub const TAINT: &str = "node.kubernetes.io/unschedulable";

pub fn filter(node: &Node, pod: &Pod) -> Option<String> {
    if !node.unschedulable {
        return None;
    }
    let taint = Taint {
        key: TAINT.into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let tolerated = pod
        .tolerations
        .iter()
        .any(|toleration| tolerates(toleration, &taint));
    (!tolerated).then(|| "node(s) were unschedulable".to_owned())
}
