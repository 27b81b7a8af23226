//! No pod is bound twice: once it has a node, it has that node until it is gone.

use super::{OfHistory, Violation};
use eventstore::Event;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Default)]
pub struct BoundOnce {
    /// pod's uid -> its node
    bound: BTreeMap<Uuid, String>,
}

impl OfHistory for BoundOnce {
    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        for folded in event
            .objects
            .iter()
            .filter(|folded| &*folded.key.resource == "pods")
        {
            let Some(pod) = &folded.after else { continue };
            let value = pod.to_value();
            let node = value["spec"]
                .get("nodeName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let before = self.bound.get(&pod.uid());
            if before.is_some_and(|before| before != node) {
                let what = format!(
                    "revision {}: {} was on {before:?}, now on {node:?}",
                    folded.revision, folded.key
                );
                return Err(Violation::new("bound once", what));
            }
            if !node.is_empty() {
                self.bound.insert(pod.uid(), node.to_owned());
            }
        }
        Ok(())
    }
}
