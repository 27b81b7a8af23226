//! What an agent asks of a container runtime. The real side is CRI over a unix socket (`cri`); tests have one in memory (`fake`).
//!
//! All that an agent must find again after its own restart is kept here, in labels and annotations under the kubelet's names, so that
//! crictl and its like show pods as anywhere.

pub mod configs;
pub mod cri;
#[cfg(test)]
pub mod fake;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_cri::v1::{ContainerConfig, PodSandboxConfig};
use thiserror::Error;

use crate::plan::Observed;

pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Seconds to wait before the attempt after this one.
pub const ANNOTATION_BACKOFF: &str = "reckon.dev/backoff-seconds";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuntimeError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
    /// The runtime itself does not answer.
    #[error("the container runtime does not answer: {0}")]
    Unavailable(String),
}

/// A pod that the runtime holds something of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub namespace: String,
    pub name: String,
    /// Ids and states: it differs when something has changed.
    pub fingerprint: Vec<(String, i32)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// An image that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// The user that it names, when that is a number.
    pub uid: Option<i64>,
    /// The user that it names, when that is none.
    pub username: String,
}

#[async_trait]
pub trait ContainerRuntime: Send + Sync {
    /// `containerd://1.6.20`.
    async fn version(&self) -> Result<String, RuntimeError>;
    /// Every pod that has a sandbox or container here, by uid.
    async fn list(&self) -> Result<BTreeMap<String, Held>, RuntimeError>;
    /// All of one pod.
    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError>;
    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError>;
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String, RuntimeError>;
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// SIGTERM (or the image's own signal), and SIGKILL after the grace; returns when it has ended.
    async fn stop_container(&self, id: &str, grace_s: u32) -> Result<(), RuntimeError>;
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// The log file was renamed: write to a new one under the old name.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    async fn pull(&self, reference: &str, sandbox: PodSandboxConfig) -> Result<(), RuntimeError>;
}
