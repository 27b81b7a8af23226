//! What is wanted of a pod, and how the node tells its worker. A level, not a queue: the worker looks when it can, and finds the newest.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::{NodeContext, spawn};
use crate::pod::Pod;

/// A pod whose object was removed without having been deleted (by force, or while the agent was away) gets at most this grace.
const REMOVED_GRACE_S: u32 = 30;

/// What is wanted of a pod, as its worker finds it when it looks.
#[derive(Clone)]
pub(super) struct Desired {
    pub pod: Arc<Pod>,
    pub revision: u64,
    /// The object is gone, or the node stops: how long its processes have.
    pub removed: Option<u32>,
    /// The node stops: nothing is reported.
    pub silent: bool,
    /// What the pod's files or problems depend on has changed.
    pub refresh: bool,
}

/// How the node tells a pod's worker what is wanted.
#[derive(Clone)]
pub struct Handle {
    desired: Arc<Mutex<Desired>>,
    pub(super) notify: Arc<Notify>,
}

impl Handle {
    pub(super) fn new(pod: Arc<Pod>, revision: u64) -> Self {
        let desired = Desired {
            pod,
            revision,
            removed: None,
            silent: false,
            refresh: false,
        };
        Handle {
            desired: Arc::new(Mutex::new(desired)),
            notify: Arc::new(Notify::new()),
        }
    }

    pub fn changed(&self, pod: Pod, revision: u64) {
        let mut desired = self.lock();
        // Each report comes back as a change of the status: that alone is nothing to act on.
        let before = &desired.pod;
        desired.refresh |= before.spec != pod.spec || before.metadata != pod.metadata;
        desired.pod = Arc::new(pod);
        desired.revision = revision;
        drop(desired);
        self.wake();
    }

    /// The object is gone.
    pub fn removed(&self) {
        let mut desired = self.lock();
        let grace_s = desired.pod.grace_s().min(REMOVED_GRACE_S);
        desired.removed.get_or_insert(grace_s);
        drop(desired);
        self.wake();
    }

    /// A new worker in the place of one that has died.
    pub fn again(&self, context: Arc<NodeContext>) -> (Handle, tokio::task::JoinHandle<()>) {
        let desired = self.lock().clone();
        spawn(context, (*desired.pod).clone(), desired.revision)
    }

    pub fn is_removed(&self) -> bool {
        self.lock().removed.is_some()
    }

    /// Stops it without a word, for the node stops.
    pub fn halt(&self, grace_s: u32) {
        let mut desired = self.lock();
        desired.removed = Some(desired.pod.grace_s().min(grace_s));
        desired.silent = true;
        drop(desired);
        self.wake();
    }

    /// A ConfigMap or Secret has changed.
    pub fn refresh(&self) {
        self.lock().refresh = true;
        self.wake();
    }

    /// Something has changed in the runtime.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    pub fn pod(&self) -> Arc<Pod> {
        self.lock().pod.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desired> {
        self.desired
            .lock()
            .expect("no holder of this lock can panic: it only moves values")
    }
}
