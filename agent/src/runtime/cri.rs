//! `ContainerRuntime` over CRI v1 on a unix socket: containerd's, ours or another's. Translates and bounds each call in time; decides
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::*;
use crate::Timestamp;
use crate::plan::{Container, Sandbox, State};

/// A call that has nothing to wait for.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Making a sandbox runs the network plugins, making a container unpacks nothing but may find a slow disk.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// A pull of one image, as slow as a registry may be.
const PULL_TIMEOUT: Duration = Duration::from_secs(900);
/// Lists carry every container of the node.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

#[derive(Clone)]
pub struct CriRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl CriRuntime {
    /// Connects lazily, and anew when the socket comes back: a runtime that restarts is no new `CriRuntime`.
    pub fn new(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_owned();
        let connector = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        // The address is never resolved: the connector knows the socket.
        let channel =
            Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(connector);
        CriRuntime {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        }
    }

    async fn container(&self, listed: cri::Container) -> Result<Option<Container>, RuntimeError> {
        let request = cri::ContainerStatusRequest {
            container_id: listed.id.clone(),
            verbose: false,
        };
        let answer = self
            .runtime
            .clone()
            .container_status(within(request, CALL_TIMEOUT))
            .await;
        let status = match answer
            .map_err(error)
            .map(|response| response.into_inner().status)
        {
            Ok(Some(status)) => status,
            // Removed since the list.
            Ok(None) | Err(RuntimeError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
        Ok(Some(Container {
            name: status
                .labels
                .get(LABEL_CONTAINER_NAME)
                .cloned()
                .unwrap_or_default(),
            sandbox_id: listed.pod_sandbox_id,
            attempt: annotation(ANNOTATION_RESTART_COUNT).parse().unwrap_or(0),
            state: match status.state() {
                cri::ContainerState::ContainerCreated => State::Created,
                cri::ContainerState::ContainerRunning => State::Running,
                cri::ContainerState::ContainerExited => State::Exited,
                cri::ContainerState::ContainerUnknown => State::Unknown,
            },
            spec_hash: annotation(ANNOTATION_HASH),
            backoff_s: annotation(ANNOTATION_BACKOFF).parse().unwrap_or(0),
            image: status.image.map(|image| image.image).unwrap_or_default(),
            image_id: status.image_ref,
            created_at: time(status.created_at).unwrap_or_default(),
            started_at: time(status.started_at),
            finished_at: time(status.finished_at),
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            id: status.id,
        }))
    }

    async fn sandbox(&self, listed: cri::PodSandbox) -> Result<Option<Sandbox>, RuntimeError> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: listed.id.clone(),
            verbose: false,
        };
        let answer = self
            .runtime
            .clone()
            .pod_sandbox_status(within(request, CALL_TIMEOUT))
            .await;
        let status = match answer
            .map_err(error)
            .map(|response| response.into_inner().status)
        {
            Ok(Some(status)) => status,
            Ok(None) | Err(RuntimeError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let network = status.network.clone().unwrap_or_default();
        let first = (!network.ip.is_empty()).then_some(network.ip);
        Ok(Some(Sandbox {
            attempt: status
                .metadata
                .as_ref()
                .map_or(0, |metadata| metadata.attempt),
            ready: status.state() == cri::PodSandboxState::SandboxReady,
            ips: first
                .into_iter()
                .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
                .collect(),
            id: status.id,
        }))
    }

    async fn listed(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<(Vec<cri::PodSandbox>, Vec<cri::Container>), RuntimeError> {
        let sandboxes = cri::ListPodSandboxRequest {
            filter: Some(cri::PodSandboxFilter {
                label_selector: labels.clone(),
                ..Default::default()
            }),
        };
        let containers = cri::ListContainersRequest {
            filter: Some(cri::ContainerFilter {
                label_selector: labels,
                ..Default::default()
            }),
        };
        let mut client = self.runtime.clone();
        let sandboxes = client
            .list_pod_sandbox(within(sandboxes, CALL_TIMEOUT))
            .await
            .map_err(error)?;
        let containers = client
            .list_containers(within(containers, CALL_TIMEOUT))
            .await
            .map_err(error)?;
        Ok((
            sandboxes.into_inner().items,
            containers.into_inner().containers,
        ))
    }
}

#[async_trait]
impl ContainerRuntime for CriRuntime {
    async fn version(&self) -> Result<String, RuntimeError> {
        let request = cri::VersionRequest {
            version: String::new(),
        };
        let version = self
            .runtime
            .clone()
            .version(within(request, Duration::from_secs(5)))
            .await
            .map_err(error)?
            .into_inner();
        // Debian's containerd calls itself `1.6.20~ds1`.
        let number = version
            .runtime_version
            .split(['~', '+'])
            .next()
            .unwrap_or_default()
            .trim_start_matches('v');
        Ok(format!("{}://{number}", version.runtime_name))
    }

    async fn list(&self) -> Result<BTreeMap<String, Held>, RuntimeError> {
        let (sandboxes, containers) = self.listed(HashMap::new()).await?;
        let mut held: BTreeMap<String, Held> = BTreeMap::new();
        let items = sandboxes
            .into_iter()
            .map(|sandbox| (sandbox.labels, sandbox.id, sandbox.state));
        let items = items.chain(
            containers
                .into_iter()
                .map(|one| (one.labels, one.id, one.state + 100)),
        );
        for (mut labels, id, state) in items {
            // What others run on the same runtime is no business of ours.
            let Some(uid) = labels.remove(LABEL_POD_UID) else {
                continue;
            };
            let pod = held.entry(uid).or_default();
            pod.namespace = labels.remove(LABEL_POD_NAMESPACE).unwrap_or_default();
            pod.name = labels.remove(LABEL_POD_NAME).unwrap_or_default();
            pod.fingerprint.push((id, state));
        }
        held.values_mut().for_each(|pod| pod.fingerprint.sort());
        Ok(held)
    }

    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError> {
        let labels = HashMap::from([(LABEL_POD_UID.to_owned(), uid.to_owned())]);
        let (sandboxes, containers) = self.listed(labels).await?;
        let sandboxes =
            try_join_all(sandboxes.into_iter().map(|listed| self.sandbox(listed))).await?;
        let containers =
            try_join_all(containers.into_iter().map(|listed| self.container(listed))).await?;
        Ok(Observed {
            sandboxes: sandboxes.into_iter().flatten().collect(),
            containers: containers.into_iter().flatten().collect(),
        })
    }

    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer = self
            .runtime
            .clone()
            .run_pod_sandbox(within(request, CREATE_TIMEOUT))
            .await
            .map_err(error)?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        gone_is_fine(
            self.runtime
                .clone()
                .stop_pod_sandbox(within(request, CREATE_TIMEOUT))
                .await,
        )
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        gone_is_fine(
            self.runtime
                .clone()
                .remove_pod_sandbox(within(request, CREATE_TIMEOUT))
                .await,
        )
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let answer = self
            .runtime
            .clone()
            .create_container(within(request, CREATE_TIMEOUT))
            .await
            .map_err(error)?;
        Ok(answer.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::StartContainerRequest {
            container_id: id.to_owned(),
        };
        self.runtime
            .clone()
            .start_container(within(request, CREATE_TIMEOUT))
            .await
            .map(drop)
            .map_err(error)
    }

    async fn stop_container(&self, id: &str, grace_s: u32) -> Result<(), RuntimeError> {
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::from(grace_s),
        };
        let patience = Duration::from_secs(u64::from(grace_s)) + CREATE_TIMEOUT;
        gone_is_fine(
            self.runtime
                .clone()
                .stop_container(within(request, patience))
                .await,
        )
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        gone_is_fine(
            self.runtime
                .clone()
                .remove_container(within(request, CREATE_TIMEOUT))
                .await,
        )
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: timeout.as_secs().max(1) as i64,
        };
        let patience = timeout + Duration::from_secs(10);
        let answer = self
            .runtime
            .clone()
            .exec_sync(within(request, patience))
            .await
            .map_err(error)?
            .into_inner();
        Ok(ExecOutput {
            exit_code: answer.exit_code,
            stdout: answer.stdout,
            stderr: answer.stderr,
        })
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let request = cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        self.runtime
            .clone()
            .reopen_container_log(within(request, CALL_TIMEOUT))
            .await
            .map(drop)
            .map_err(error)
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let request = cri::ImageStatusRequest {
            image: Some(spec(reference)),
            verbose: false,
        };
        let answer = self
            .images
            .clone()
            .image_status(within(request, CALL_TIMEOUT))
            .await
            .map_err(error)?;
        Ok(answer.into_inner().image.map(|image| Image {
            id: image.id,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
        }))
    }

    async fn pull(&self, reference: &str, sandbox: PodSandboxConfig) -> Result<(), RuntimeError> {
        let request = cri::PullImageRequest {
            image: Some(spec(reference)),
            auth: None,
            sandbox_config: Some(sandbox),
        };
        self.images
            .clone()
            .pull_image(within(request, PULL_TIMEOUT))
            .await
            .map(drop)
            .map_err(error)
    }
}

fn spec(reference: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: reference.to_owned(),
        ..Default::default()
    }
}

fn within<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

/// Stopping or removing what is not there has been done already.
fn gone_is_fine<T>(answer: Result<T, Status>) -> Result<(), RuntimeError> {
    match answer.map(drop).map_err(error) {
        Err(RuntimeError::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn error(status: Status) -> RuntimeError {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => RuntimeError::NotFound(message),
        Code::Unavailable => RuntimeError::Unavailable(message),
        _ => RuntimeError::Failed(message),
    }
}

/// Nanoseconds since 1970; 0 is never.
fn time(nanos: i64) -> Option<Timestamp> {
    (nanos != 0).then(|| Timestamp::from_timestamp_nanos(nanos))
}
