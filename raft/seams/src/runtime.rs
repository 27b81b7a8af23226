//! Threads, for work that blocks: syncing a disk, applying a group of entries, folding a round.
//!
//! Such work must not sit on an async thread, and in a simulation there must be no other thread. So it is handed over
//! as jobs: the real side runs them on a thread, the simulated side runs them where they are handed over, at once. A job
//! must therefore never wait for another job or for a task, or a simulation stands still.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// How many jobs may wait at one worker. Callers bound what they have in flight far below this.
pub const WORKER_JOBS_MAX: usize = 4_096;

/// A piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Where blocking work runs.
pub trait Runtime: Send + Sync + 'static {
    /// A new worker: a thread with this name, or, when simulated, the caller's own.
    fn worker(&self, name: &str) -> Result<Box<dyn Worker>, WorkerError>;
}

/// Runs jobs one after another, in the order they were submitted. Dropping it waits until the submitted ones are done, for
/// a process must not end while one still has a database open; only a job that drops its own worker does not wait.
pub trait Worker: Send + Sync + 'static {
    /// Hands a job over. Never blocks on the real side; on the simulated side the job has run when this returns.
    fn submit(&self, job: Job) -> Result<(), WorkerError>;

    /// Whether all that was submitted is done, and the next job would begin in a moment.
    fn is_idle(&self) -> bool;
}

/// Why a job could not be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    #[error("thread {name} could not be started: {reason}")]
    NotStarted { name: String, reason: String },
    #[error("more than {WORKER_JOBS_MAX} jobs wait at this thread")]
    Full,
    /// The thread is gone, or the job panicked before it had a result.
    #[error("the thread has ended")]
    Ended,
}

/// Runs `work` on `worker` and waits for its result.
pub async fn run<T, F>(worker: &dyn Worker, work: F) -> Result<T, WorkerError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    worker.submit(Box::new(move || {
        // The one who asked may have gone away; the work was done all the same.
        let _ = sender.send(work());
    }))?;
    receiver.await.map_err(|_| WorkerError::Ended)
}

/// Runs work that takes long, a read of the disk or much that is computed, where it is, out of the others' way: on a runtime of many
/// threads their tasks are moved to another thread first, on the simulation's single one they wait. To move them is a wake-up of a thread.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        Ok(_) | Err(_) => work(),
    }
}

/// Real threads.
#[derive(Debug, Default, Clone, Copy)]
pub struct ThreadRuntime;

impl Runtime for ThreadRuntime {
    fn worker(&self, name: &str) -> Result<Box<dyn Worker>, WorkerError> {
        let (sender, receiver) = mpsc::sync_channel::<Job>(WORKER_JOBS_MAX);
        let waiting = Arc::<AtomicUsize>::default();
        let done = waiting.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Ok(job) = receiver.recv() {
                    job();
                    done.fetch_sub(1, Ordering::Release);
                }
            })
            .map_err(|error| WorkerError::NotStarted {
                name: name.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Box::new(Thread {
            waiting,
            jobs: Some(sender),
            thread: Some(thread),
        }))
    }
}

struct Thread {
    /// Jobs that were submitted and are not done. One that panics never is.
    waiting: Arc<AtomicUsize>,
    /// Both are there until it is dropped.
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let other = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = other {
            // A job that panicked has said so where it happened.
            let _ = thread.join();
        }
    }
}

impl Worker for Thread {
    fn submit(&self, job: Job) -> Result<(), WorkerError> {
        let jobs = self.jobs.as_ref().ok_or(WorkerError::Ended)?;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        jobs.try_send(job).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::TrySendError::Full(_) => WorkerError::Full,
                mpsc::TrySendError::Disconnected(_) => WorkerError::Ended,
            }
        })
    }

    fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    #[tokio::test]
    async fn jobs_run_in_order_and_hand_back_their_results() {
        let worker = ThreadRuntime.worker("test").unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for number in 0..100 {
            let seen = seen.clone();
            worker
                .submit(Box::new(move || seen.lock().unwrap().push(number)))
                .unwrap();
        }
        assert_eq!(run(&*worker, || 7).await, Ok(7));
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    /// With one thread of its own, the runtime would stand still here for good if the others' tasks were not moved.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_while_one_blocks() {
        let (other_ran, wait) = mpsc::channel();
        let blocked = tokio::spawn(async move {
            tokio::spawn(async move { other_ran.send(7) });
            blocking(move || wait.recv_timeout(Duration::from_secs(10)))
        });
        assert_eq!(blocked.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn on_a_single_thread_work_runs_where_it_is() {
        assert_eq!(blocking(thread::current).id(), thread::current().id());
    }

    #[test]
    fn dropping_a_worker_waits_for_its_jobs() {
        let worker = ThreadRuntime.worker("test").unwrap();
        let done = Arc::new(Mutex::new(false));
        let seen = done.clone();
        let (open, wait) = mpsc::channel::<()>();
        worker
            .submit(Box::new(move || {
                wait.recv().unwrap();
                *seen.lock().unwrap() = true;
            }))
            .unwrap();
        let opens = thread::spawn(move || {
            thread::sleep(std::time::Duration::from_millis(50));
            open.send(()).unwrap();
        });
        drop(worker);
        assert!(*done.lock().unwrap());
        opens.join().unwrap();
    }

    #[test]
    fn a_job_may_drop_its_own_worker() {
        let worker = Arc::new(Mutex::new(None));
        *worker.lock().unwrap() = Some(ThreadRuntime.worker("test").unwrap());
        let (ended, end) = mpsc::channel();
        let own = worker.clone();
        worker
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .submit(Box::new(move || {
                let own = own.lock().unwrap().take();
                drop(own);
                ended.send(()).unwrap();
            }))
            .unwrap();
        end.recv_timeout(std::time::Duration::from_secs(10))
            .unwrap();
    }

    #[tokio::test]
    async fn a_worker_is_idle_once_its_jobs_are_done() {
        let worker = ThreadRuntime.worker("test").unwrap();
        assert!(worker.is_idle());
        let (open, wait) = mpsc::channel::<()>();
        worker
            .submit(Box::new(move || wait.recv().unwrap()))
            .unwrap();
        assert!(!worker.is_idle(), "one is waiting, or under way");
        open.send(()).unwrap();
        run(&*worker, || ()).await.unwrap();
        while !worker.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_ends_the_thread_and_says_so() {
        let worker = ThreadRuntime.worker("test").unwrap();
        assert_eq!(
            run(&*worker, || -> u8 { panic!("as the test wants") }).await,
            Err(WorkerError::Ended)
        );
        assert_eq!(run(&*worker, || 7).await, Err(WorkerError::Ended));
    }
}
