//! No node is overcommitted by a bind: when a pod is bound, what its node's pods ask for fits into what the node has.

use super::{OfHistory, Violation};
use eventstore::{Event, Key};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a pod takes: milli-CPUs.
#[derive(Clone, Debug)]
struct Taken {
    node: String,
    milli_cpu: i64,
}

#[derive(Default)]
pub struct Capacity {
    /// node -> (milli-CPUs, pods) that it has
    nodes: BTreeMap<String, (i64, usize)>,
    pods: BTreeMap<Key, Taken>,
}

impl OfHistory for Capacity {
    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        for folded in &event.objects {
            let value = folded.after.as_ref().map(|object| object.to_value());
            match (&*folded.key.resource, value) {
                ("nodes", Some(node)) => {
                    let has = &node["status"]["allocatable"];
                    let pods = has["pods"]
                        .as_str()
                        .and_then(|pods| pods.parse().ok())
                        .unwrap_or(0);
                    self.nodes
                        .insert(folded.key.name.to_string(), (milli_cpu(&has["cpu"]), pods));
                }
                ("nodes", None) => {
                    self.nodes.remove(&*folded.key.name);
                }
                ("pods", Some(pod)) => self.pod(&folded.key, &pod, folded.revision)?,
                ("pods", None) => {
                    self.pods.remove(&folded.key);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Capacity {
    fn pod(&mut self, key: &Key, pod: &Value, revision: u64) -> Result<(), Violation> {
        let node = pod["spec"]
            .get("nodeName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let ended = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        if node.is_empty() || ended {
            self.pods.remove(key);
            return Ok(());
        }
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let asked = containers
            .map(|container| milli_cpu(&container["resources"]["requests"]["cpu"]))
            .sum();
        let fresh = self
            .pods
            .insert(
                key.clone(),
                Taken {
                    node: node.to_owned(),
                    milli_cpu: asked,
                },
            )
            .is_none();
        let Some((cpu, most)) = self.nodes.get(node).filter(|_| fresh) else {
            return Ok(());
        };
        let on_node: Vec<_> = self
            .pods
            .values()
            .filter(|taken| taken.node == node)
            .collect();
        let taken: i64 = on_node.iter().map(|taken| taken.milli_cpu).sum();
        if taken > *cpu || on_node.len() > *most {
            let what = format!(
                "revision {revision}: binding {key} to {node} makes {taken}m of {cpu}m CPU and {} of {most} pods",
                on_node.len()
            );
            return Err(Violation::new("capacity", what));
        }
        Ok(())
    }
}

/// `2`, `1500m` or 2, in milli-CPUs.
fn milli_cpu(quantity: &Value) -> i64 {
    match quantity {
        Value::String(text) => match text.strip_suffix('m') {
            Some(milli) => milli.parse().unwrap_or(0),
            None => text.parse::<i64>().map_or(0, |cores| cores * 1000),
        },
        Value::Number(cores) => cores.as_i64().unwrap_or(0) * 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_cpus() {
        for (quantity, milli) in [
            (json!("2"), 2000),
            (json!("1500m"), 1500),
            (json!(1), 1000),
            (json!(null), 0),
        ] {
            assert_eq!(milli_cpu(&quantity), milli, "{quantity}");
        }
    }
}
