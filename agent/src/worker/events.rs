//! What a pod's worker tells as events: what `kubectl describe` shows below the pod. Reasons and texts are those that people know from the
//! kubelet.

use super::{NodeContext, Worker};
use crate::pod::Pod;
use crate::{proto, rfc3339};

impl Worker {
    pub(super) fn event(&self, kind: &str, reason: &str, message: impl Into<String>, container: &str) {
        if !self.desired.silent {
            self.context.event(&self.desired.pod, kind, reason, message, container);
        }
    }
}

impl NodeContext {
    /// `container`: its name, or empty for the pod as a whole.
    pub(super) fn event(&self, pod: &Pod, kind: &str, reason: &str, message: impl Into<String>, container: &str) {
        let list = if pod.spec.init_containers.iter().any(|spec| spec.name == container) {
            "initContainers"
        } else {
            "containers"
        };
        let field_path = if container.is_empty() { String::new() } else { format!("spec.{list}{{{container}}}") };
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
