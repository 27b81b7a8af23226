//! Blocking work without threads: a job has run when it was handed over. On a slow disk it runs later, in its turn.

use seams::{Job, Runtime, Worker, WorkerError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// The workers whose jobs write to the disk.
const OF_THE_DISK: [&str; 2] = ["log-write", "apply"];

/// Of one server. Cheap to clone; all clones are as slow.
#[derive(Clone, Default)]
pub struct SimRuntime {
    takes: Arc<Mutex<Duration>>,
}

impl SimRuntime {
    /// From now on each job of the disk takes so long.
    pub fn set_disk_takes(&self, takes: Duration) {
        *lock(&self.takes) = takes;
    }
}

impl Runtime for SimRuntime {
    fn worker(&self, name: &str) -> Result<Box<dyn Worker>, WorkerError> {
        let takes = if OF_THE_DISK.contains(&name) {
            self.takes.clone()
        } else {
            Arc::default()
        };
        Ok(Box::new(SimWorker {
            takes,
            waiting: Arc::default(),
        }))
    }
}

/// Jobs that wait for a slow disk; none while it is quick.
type Waiting = Arc<Mutex<VecDeque<Job>>>;

struct SimWorker {
    takes: Arc<Mutex<Duration>>,
    waiting: Waiting,
}

impl Worker for SimWorker {
    fn submit(&self, job: Job) -> Result<(), WorkerError> {
        let takes = *lock(&self.takes);
        let mut waiting = lock(&self.waiting);
        match waiting.is_empty() {
            true if takes.is_zero() => {
                drop(waiting);
                job();
            }
            true => {
                waiting.push_back(job);
                tokio::spawn(run(self.takes.clone(), self.waiting.clone()));
            }
            false => waiting.push_back(job),
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        lock(&self.takes).is_zero() && lock(&self.waiting).is_empty()
    }
}

/// A server that crashed does nothing more.
impl Drop for SimWorker {
    fn drop(&mut self) {
        lock(&self.waiting).clear();
    }
}

/// Runs jobs until none is left. One stays in the queue while it is under way, so that no other overtakes it.
async fn run(takes: Arc<Mutex<Duration>>, waiting: Waiting) {
    loop {
        let takes = *lock(&takes);
        sleep(takes).await;
        let Some(job) = lock(&waiting).front_mut().map(take) else {
            return;
        };
        job();
        let mut waiting = lock(&waiting);
        waiting.pop_front();
        if waiting.is_empty() {
            return;
        }
    }
}

/// The job, and in its place one that does nothing.
fn take(job: &mut Job) -> Job {
    std::mem::replace(job, Box::new(|| {}))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
