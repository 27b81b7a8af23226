//! What a pod's worker tells as events: what `kubectl describe` shows below the pod. Reasons and texts are those that people know from the
//! kubelet.

use serde_json::Value;

use super::{NodeContext, Worker};
use crate::pod::Pod;
use crate::{proto, rfc3339};

impl Worker {
    pub(super) fn event(
        &self,
        kind: &str,
        reason: &str,
        message: impl Into<String>,
        container: &str,
    ) {
        if !self.desired.silent {
            self.context
                .event(&self.desired.pod, kind, reason, message, container);
        }
    }

    /// An event for each container that has begun to wait for a back-off.
    pub(super) fn tell_back_offs(&self, before: &Value) {
        for list in ["initContainerStatuses", "containerStatuses"] {
            let waits = |status: &Value| -> Vec<(String, String, u64)> {
                let all = status[list].as_array().into_iter().flatten();
                all.filter_map(|one| {
                    let reason = one["state"]["waiting"]["reason"]
                        .as_str()
                        .filter(|reason| reason.ends_with("BackOff"))?;
                    Some((
                        one["name"].as_str()?.to_owned(),
                        reason.to_owned(),
                        one["restartCount"].as_u64()?,
                    ))
                })
                .collect()
            };
            let known = waits(before);
            for (name, reason, count) in waits(&self.reported) {
                if known.contains(&(name.clone(), reason.clone(), count)) {
                    continue;
                }
                let meta = &self.desired.pod.metadata;
                if reason == "CrashLoopBackOff" {
                    let message = format!(
                        "Back-off restarting failed container {name} in pod {}_{}({})",
                        meta.name, meta.namespace, meta.uid
                    );
                    self.event("Warning", "BackOff", message, &name);
                } else {
                    let image = self
                        .desired
                        .pod
                        .container(&name)
                        .map_or("", |spec| spec.image.as_str());
                    self.event(
                        "Normal",
                        "BackOff",
                        format!("Back-off pulling image \"{image}\""),
                        &name,
                    );
                }
            }
        }
    }
}

impl NodeContext {
    /// `container`: its name, or empty for the pod as a whole.
    pub(super) fn event(
        &self,
        pod: &Pod,
        kind: &str,
        reason: &str,
        message: impl Into<String>,
        container: &str,
    ) {
        let list = if pod
            .spec
            .init_containers
            .iter()
            .any(|spec| spec.name == container)
        {
            "initContainers"
        } else {
            "containers"
        };
        let field_path = if container.is_empty() {
            String::new()
        } else {
            format!("spec.{list}{{{container}}}")
        };
        self.outbox.event(proto::PodEvent {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            r#type: kind.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            field_path,
            time: rfc3339(self.now()),
        });
    }
}
