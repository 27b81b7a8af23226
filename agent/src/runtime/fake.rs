//! A container runtime in memory, for tests of what stands on one: containers run until they are told to stop, or exit as set.

use std::sync::Mutex;

use super::*;
use crate::Timestamp;
use crate::plan::{Container, Sandbox, State};

#[derive(Default)]
pub struct FakeRuntime {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sandboxes: Vec<(String, Sandbox)>,
    containers: Vec<(String, Container)>,
    /// Calls that changed something, in order.
    calls: Vec<String>,
    /// Images that are not there, and can't be pulled.
    missing: Vec<String>,
    /// Seconds that a container takes to obey SIGTERM.
    obeys_after_s: u32,
    next: u32,
    keeps_sandboxes: bool,
}

impl FakeRuntime {
    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    pub fn take_image(&self, reference: &str) {
        self.inner
            .lock()
            .unwrap()
            .missing
            .push(reference.to_owned());
    }

    pub fn give_images(&self) {
        self.inner.lock().unwrap().missing.clear();
    }

    pub fn obeys_after(&self, seconds: u32) {
        self.inner.lock().unwrap().obeys_after_s = seconds;
    }

    /// From now on no sandbox can be removed, or again all can.
    pub fn keep_sandboxes(&self, keep: bool) {
        self.inner.lock().unwrap().keeps_sandboxes = keep;
    }

    /// Ends the running container of that name.
    pub fn exit(&self, name: &str, exit_code: i32, at: Timestamp) {
        for (_, container) in &mut self.inner.lock().unwrap().containers {
            if container.name == name && container.state == State::Running {
                container.state = State::Exited;
                container.exit_code = exit_code;
                container.finished_at = Some(at);
            }
        }
    }

    fn call(&self, text: String) {
        self.inner.lock().unwrap().calls.push(text);
    }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn version(&self) -> Result<String, RuntimeError> {
        Ok("fake://1".into())
    }

    async fn list(&self) -> Result<BTreeMap<String, Held>, RuntimeError> {
        let inner = self.inner.lock().unwrap();
        Ok(inner
            .sandboxes
            .iter()
            .map(|(uid, _)| (uid.clone(), Held::default()))
            .collect())
    }

    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError> {
        let inner = self.inner.lock().unwrap();
        let sandboxes = inner
            .sandboxes
            .iter()
            .filter(|(of, _)| of == uid)
            .map(|(_, one)| one.clone())
            .collect();
        let containers = inner
            .containers
            .iter()
            .filter(|(of, _)| of == uid)
            .map(|(_, one)| one.clone())
            .collect();
        Ok(Observed {
            sandboxes,
            containers,
        })
    }

    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let metadata = config.metadata.unwrap();
        let id = format!("sandbox-{}", metadata.attempt);
        self.call(format!("run {id}"));
        let sandbox = Sandbox {
            id: id.clone(),
            attempt: metadata.attempt,
            ready: true,
            ips: vec!["10.9.9.9".into()],
        };
        self.inner
            .lock()
            .unwrap()
            .sandboxes
            .push((metadata.uid, sandbox));
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut inner = self.inner.lock().unwrap();
        for (_, sandbox) in inner
            .sandboxes
            .iter_mut()
            .filter(|(_, sandbox)| sandbox.id == id)
        {
            sandbox.ready = false;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(format!("remove {id}"));
        if self.inner.lock().unwrap().keeps_sandboxes {
            return Err(RuntimeError::Failed("busy".into()));
        }
        self.inner
            .lock()
            .unwrap()
            .sandboxes
            .retain(|(_, sandbox)| sandbox.id != id);
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut inner = self.inner.lock().unwrap();
        inner.next += 1;
        let metadata = config.metadata.unwrap();
        let id = format!("{}-{}", metadata.name, metadata.attempt);
        inner.calls.push(format!("create {id}"));
        let container = Container {
            id: id.clone(),
            name: metadata.name,
            sandbox_id: sandbox_id.to_owned(),
            attempt: metadata.attempt,
            state: State::Created,
            spec_hash: config.annotations[ANNOTATION_HASH].clone(),
            backoff_s: config.annotations[ANNOTATION_BACKOFF].parse().unwrap(),
            image: config.image.unwrap().image,
            image_id: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
        };
        inner
            .containers
            .push((sandbox.metadata.unwrap().uid, container));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        for (_, container) in &mut self.inner.lock().unwrap().containers {
            if container.id == id {
                container.state = State::Running;
                container.started_at = Some(Timestamp::UNIX_EPOCH);
            }
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace_s: u32) -> Result<(), RuntimeError> {
        let obeys_after_s = self.inner.lock().unwrap().obeys_after_s;
        self.call(format!("stop {id} {grace_s}"));
        tokio::time::sleep(Duration::from_secs(u64::from(obeys_after_s.min(grace_s)))).await;
        let mut inner = self.inner.lock().unwrap();
        for (_, container) in inner
            .containers
            .iter_mut()
            .filter(|(_, container)| container.id == id)
        {
            container.state = State::Exited;
            container.exit_code = if obeys_after_s > grace_s { 137 } else { 0 };
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(format!("remove {id}"));
        self.inner
            .lock()
            .unwrap()
            .containers
            .retain(|(_, container)| container.id != id);
        Ok(())
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        _: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.call(format!("exec {id} {}", command.join(" ")));
        Ok(ExecOutput::default())
    }

    async fn reopen_log(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let missing = self
            .inner
            .lock()
            .unwrap()
            .missing
            .iter()
            .any(|missing| missing == reference);
        Ok((!missing).then(|| Image {
            id: reference.to_owned(),
            ..Image::default()
        }))
    }

    async fn pull(&self, reference: &str, _: PodSandboxConfig) -> Result<(), RuntimeError> {
        self.call(format!("pull {reference}"));
        match self.image(reference).await? {
            Some(_) => Ok(()),
            None => Err(RuntimeError::Failed("no such host".into())),
        }
    }
}
