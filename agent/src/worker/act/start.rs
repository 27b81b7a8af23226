//! Starts one attempt of a container: image, environment, mounts, creation, start, postStart. Where it fails is what the status says:
//! ErrImagePull, CreateContainerConfigError, CreateContainerError, or, once it was made, an exit like any other.

use std::time::Duration;

use super::{Act, Done};
use crate::env::{self, Downward};
use crate::pod::Container;
use crate::probes;
use crate::runtime::{Image, configs};
use crate::volumes;

/// A postStart hook has no grace period of its own in Kubernetes; this is ours.
const POST_START_TIMEOUT: Duration = Duration::from_secs(600);

/// (reason, reason once its back-off is waited for, message)
type Failure = (&'static str, &'static str, String);

impl Act {
    pub(super) async fn start_container(
        &mut self,
        name: &str,
        sandbox_id: &str,
        attempt: u32,
        backoff_s: u32,
    ) -> Done {
        let pod = self.pod.clone();
        let Some(spec) = pod.container(name) else {
            return Done::All;
        };
        let started = self.make(spec, sandbox_id, attempt, backoff_s).await;
        match started {
            Ok(()) => {
                self.memory.problems.remove(name);
                Done::All
            }
            Err(_) if self.interrupt.is_cancelled() => Done::All,
            Err((reason, later, message)) => {
                let told = match reason {
                    "ErrImagePull" | "ErrImageNeverPull" | "ImageInspectError" => {
                        format!("Error: {reason}")
                    }
                    _ => format!("Error: {message}"),
                };
                // What the server sends in a moment is no failure.
                if !message.ends_with("has not arrived yet") {
                    self.event("Warning", "Failed", told, name);
                }
                let before = self
                    .memory
                    .problems
                    .get(name)
                    .filter(|before| before.reason == reason);
                let problem = self.problem(before, reason, later, message);
                self.memory.problems.insert(name.to_owned(), problem);
                Done::Told
            }
        }
    }

    async fn make(
        &self,
        spec: &Container,
        sandbox_id: &str,
        attempt: u32,
        backoff_s: u32,
    ) -> Result<(), Failure> {
        let image = self.image(spec).await?;
        let config = |message: String| {
            (
                "CreateContainerConfigError",
                "CreateContainerConfigError",
                message,
            )
        };
        self.check_user(spec, &image).map_err(config)?;
        let downward = Downward {
            pod: &self.pod,
            pod_ips: &self.ips,
            host_ip: &self.context.host_ip,
            allocatable_cpu_milli: self.context.allocatable_cpu_milli,
            allocatable_memory: self.context.allocatable_memory,
        };
        let mut env = env::environment(spec, &downward, &self.context.objects)
            .map_err(|error| config(error.to_string()))?;
        if !env.iter().any(|(name, _)| name == "HOSTNAME") {
            env.insert(0, ("HOSTNAME".to_owned(), volumes::hostname(&self.pod)));
        }
        let expand = |text: &str| {
            env::expand(text, &|name| {
                env.iter()
                    .find(|(held, _)| held == name)
                    .map(|(_, value)| value.clone())
            })
        };
        let mounts = volumes::mounts(&self.pod, spec, attempt, &self.dirs, &expand)
            .map_err(|error| config(error.to_string()))?;
        let create = |message: String| ("CreateContainerError", "CreateContainerError", message);
        let _ = std::fs::create_dir_all(self.log_dir().join(&spec.name));
        let attempt = configs::Attempt {
            number: attempt,
            backoff_s,
            image_id: &image.id,
            env,
            mounts,
        };
        let config = configs::container(&self.pod, spec, attempt, &self.context.facts);
        let runtime = &self.context.runtime;
        let id = runtime
            .create_container(sandbox_id, config, self.sandbox_config(0))
            .await
            .map_err(|error| create(error.to_string()))?;
        self.event(
            "Normal",
            "Created",
            format!("Created container: {}", spec.name),
            &spec.name,
        );
        if let Err(error) = runtime.start_container(&id).await {
            // The runtime keeps it as one that has ended (StartError): the next plan backs off from that.
            self.event("Warning", "Failed", format!("Error: {error}"), &spec.name);
            return Ok(());
        }
        self.event(
            "Normal",
            "Started",
            format!("Started container {}", spec.name),
            &spec.name,
        );
        self.post_start(spec, &id).await;
        Ok(())
    }

    /// A hook that fails ends its container, as in Kubernetes.
    async fn post_start(&self, spec: &Container, id: &str) {
        let Some(hook) = &spec.lifecycle.post_start else {
            return;
        };
        let target = self.target(id, spec);
        let answer = tokio::select! {
            answer = probes::run_hook(&target, hook, POST_START_TIMEOUT) => answer,
            () = self.interrupt.cancelled() => return,
        };
        if !answer.ok {
            self.event(
                "Warning",
                "FailedPostStartHook",
                format!("PostStartHook failed: {}", answer.message),
                &spec.name,
            );
            if let Err(error) = self
                .context
                .runtime
                .stop_container(id, self.pod.grace_s())
                .await
            {
                tracing::warn!(pod = self.pod.path(), %error, "cannot stop after its hook failed");
            }
        }
    }

    /// The image, pulled if its policy asks for it.
    async fn image(&self, spec: &Container) -> Result<Image, Failure> {
        let reference = &spec.image;
        let look = |error: crate::runtime::RuntimeError| {
            ("ImageInspectError", "ImageInspectError", error.to_string())
        };
        let mut present = self.context.runtime.image(reference).await.map_err(look)?;
        if present.is_none() {
            self.import_archives().await;
            present = self.context.runtime.image(reference).await.map_err(look)?;
        }
        match (present, spec.pull_policy()) {
            (Some(image), "IfNotPresent" | "Never") => {
                let message = format!("Container image \"{reference}\" already present on machine");
                self.event("Normal", "Pulled", message, &spec.name);
                return Ok(image);
            }
            (None, "Never") => {
                let message = format!(
                    "Container image \"{reference}\" is not present with pull policy of Never"
                );
                return Err(("ErrImageNeverPull", "ErrImageNeverPull", message));
            }
            _ => {}
        }
        self.event(
            "Normal",
            "Pulling",
            format!("Pulling image \"{reference}\""),
            &spec.name,
        );
        let failed = |message: String| ("ErrImagePull", "ImagePullBackOff", message);
        let pulled = tokio::select! {
            pulled = self.context.runtime.pull(reference, self.sandbox_config(0)) => pulled,
            () = self.interrupt.cancelled() => return Err(failed("the pod is being deleted".to_owned())),
        };
        if let Err(error) = pulled {
            self.event(
                "Warning",
                "Failed",
                format!("Failed to pull image \"{reference}\": {error}"),
                &spec.name,
            );
            return Err(failed(format!(
                "failed to pull image \"{reference}\": {error}"
            )));
        }
        self.event(
            "Normal",
            "Pulled",
            format!("Successfully pulled image \"{reference}\""),
            &spec.name,
        );
        let present = self.context.runtime.image(reference).await.map_err(look)?;
        present.ok_or_else(|| failed(format!("image \"{reference}\" is not there after its pull")))
    }

    /// Archives that were just put there, so that no registry need be asked for what they hold.
    async fn import_archives(&self) {
        tokio::select! {
            () = async { self.context.archives.lock().await.scan().await } => {}
            () = self.interrupt.cancelled() => {}
        }
    }

    /// runAsNonRoot: refused when the user is root, or can't be known not to be.
    fn check_user(&self, spec: &Container, image: &Image) -> Result<(), String> {
        let (own, shared) = (&spec.security_context, &self.pod.spec.security_context);
        if own.run_as_non_root.or(shared.run_as_non_root) != Some(true) {
            return Ok(());
        }
        match own.run_as_user.or(shared.run_as_user).or(image.uid) {
            Some(0) if own.run_as_user.or(shared.run_as_user).is_some() => {
                Err("container's runAsUser breaks non-root policy".to_owned())
            }
            Some(0) => Err("container has runAsNonRoot and image will run as root".to_owned()),
            Some(_) => Ok(()),
            None if image.username.is_empty() => {
                Err("container has runAsNonRoot and image will run as root".to_owned())
            }
            None => Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                image.username
            )),
        }
    }
}
