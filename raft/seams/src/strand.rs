//! Tasks that run as one.
//!
//! Consensus is many tasks that hand each other pieces of work a few microseconds long: openraft's core, its replication to each peer, the
//! connections there, the queue of proposals. To tokio each is for itself, and where a second one is ready another thread is woken to take
//! it, which costs more than the piece and puts the two on different cores. The tasks of a strand are one task to tokio: what one of
//! them wakes runs next on the same thread, without a system call.
//!
//! They never run at the same time. What computes for long or blocks has no place among them: it would hold up heartbeats.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

tokio::task_local! {
    /// The strand whose task this is. Weak: a strand ends when nobody else has it any more and its tasks are done.
    static CURRENT: mpsc::WeakUnboundedSender<Task>;
}

/// Where tasks are put that run as one. Clones are the same strand.
#[derive(Clone)]
pub struct Strand(mpsc::UnboundedSender<Task>);

impl fmt::Debug for Strand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strand")
    }
}

impl Strand {
    /// A new one, on this runtime.
    #[expect(
        clippy::new_without_default,
        reason = "it takes a runtime, which a default may not ask for"
    )]
    pub fn new() -> Self {
        let (sender, begun) = mpsc::unbounded_channel();
        // They share one task's budget otherwise, and where that is used up none goes on. After each has had its turn, other tasks have
        // theirs all the same.
        let running = coop::unconstrained(run(begun));
        tokio::spawn(CURRENT.scope(sender.downgrade(), running));
        Self(sender)
    }

    /// Begins a task. It goes on though nobody waits for it.
    pub fn spawn<F>(&self, future: F) -> Joined<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, joined) = joined(future);
        // Only a runtime that ends takes the other end away, and its tasks with it.
        let _ = self.0.send(Box::pin(task));
        joined
    }

    /// What `future` begins by [`spawn`] is of this strand.
    pub fn enter<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self.0.downgrade(), future)
    }
}

/// Begins a task of the strand that the caller is of; where it is of none, a task of tokio's.
pub fn spawn<F>(future: F) -> Joined<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let current = CURRENT.try_with(mpsc::WeakUnboundedSender::upgrade);
    match current.ok().flatten() {
        Some(sender) => Strand(sender).spawn(future),
        None => {
            let (task, joined) = joined(future);
            tokio::spawn(task);
            joined
        }
    }
}

impl hyper::rt::Executor<Task> for Strand {
    fn execute(&self, task: Task) {
        self.spawn(task);
    }
}

async fn run(mut begun: mpsc::UnboundedReceiver<Task>) {
    let mut running = FuturesUnordered::new();
    let mut closed = false;
    poll_fn(|context| {
        loop {
            while !closed {
                match begun.poll_recv(context) {
                    Poll::Ready(Some(task)) => running.push(task),
                    Poll::Ready(None) => closed = true,
                    Poll::Pending => break,
                }
            }
            match running.poll_next_unpin(context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if closed => return Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// What became of a task.
pub struct Joined<T>(oneshot::Receiver<Result<T, TaskError>>);

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// Its runtime has ended.
    #[error("the task was dropped")]
    Dropped,
}

impl<T> Future for Joined<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = self.0.poll_unpin(context);
        result.map(|result| result.unwrap_or(Err(TaskError::Dropped)))
    }
}

fn joined<F: Future>(future: F) -> (impl Future<Output = ()>, Joined<F::Output>) {
    let (sender, receiver) = oneshot::channel();
    // A panic is one task's end, as tokio has it.
    let task = AssertUnwindSafe(future).catch_unwind().map(|result| {
        let result = result.map_err(|panic| TaskError::Panicked(message(&*panic)));
        // Nobody may wait for it.
        let _ = sender.send(result);
    });
    (task, Joined(receiver))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::runtime::Handle;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    /// Two tasks that hand a number to and fro, so many times.
    fn to_and_fro(
        times: u32,
    ) -> (
        impl Future<Output = ()> + Send,
        impl Future<Output = ()> + Send,
    ) {
        let (to, mut taken) = mpsc::channel(1);
        let (fro, mut given) = mpsc::channel(1);
        let one = async move {
            for number in 0..times {
                to.send(number).await.unwrap();
                assert_eq!(given.recv().await, Some(number));
            }
        };
        let other = async move {
            while let Some(number) = taken.recv().await {
                fro.send(number).await.unwrap();
            }
        };
        (one, other)
    }

    #[test]
    fn none_of_many_wakes_from_other_threads_is_lost() {
        const NUMBERS: u64 = 100_000;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let sum = runtime.block_on(async {
            let strand = Strand::new();
            let (sender, mut receiver) = mpsc::unbounded_channel();
            for first in 0..2 {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    (first..NUMBERS)
                        .step_by(2)
                        .for_each(|number| sender.send(number).unwrap());
                });
            }
            drop(sender);
            let sum = strand.spawn(async move {
                let mut sum = 0;
                while let Some(number) = receiver.recv().await {
                    sum += number;
                }
                sum
            });
            sum.await
        });
        assert_eq!(sum, Ok(NUMBERS * (NUMBERS - 1) / 2));
    }

    #[tokio::test]
    async fn a_strand_that_never_rests_lets_others_run() {
        let strand = Strand::new();
        let (one, other) = to_and_fro(u32::MAX);
        strand.spawn(one);
        strand.spawn(other);
        for _ in 0..100 {
            yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_its_tasks_begin_is_of_it_and_no_two_run_at_once() {
        let strand = Strand::new();
        let (busy, overlaps) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let piece = {
            let (busy, overlaps) = (busy.clone(), overlaps.clone());
            move || {
                overlaps.fetch_add(
                    usize::from(busy.swap(true, Ordering::SeqCst)),
                    Ordering::SeqCst,
                );
                std::thread::sleep(Duration::from_micros(50));
                busy.store(false, Ordering::SeqCst);
            }
        };
        let begun = strand.enter(async {
            let mut tasks = Vec::new();
            for _ in 0..4 {
                let piece = piece.clone();
                tasks.push(spawn(async move {
                    let inner = spawn({
                        let piece = piece.clone();
                        async move { piece() }
                    });
                    for _ in 0..50 {
                        piece();
                        yield_now().await;
                    }
                    inner.await.unwrap();
                }));
            }
            tasks
        });
        for task in begun.await {
            task.await.unwrap();
        }
        assert_eq!(overlaps.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_is_told() {
        let strand = Strand::new();
        let panics = strand.spawn(async { panic!("as the test wants") });
        let number = 7;
        let other = strand.spawn(async move { number });
        let error: Result<(), _> = panics.await;
        assert_eq!(
            error,
            Err(TaskError::Panicked("as the test wants".to_owned()))
        );
        assert_eq!(other.await, Ok(7));
    }

    #[tokio::test]
    async fn it_goes_on_until_its_tasks_are_done_and_ends_then() {
        let strand = Strand::new();
        let weak = strand.0.downgrade();
        let (sender, receiver) = oneshot::channel();
        let seen = Arc::<Mutex<Option<bool>>>::default();
        let sees = seen.clone();
        let task = strand.spawn(async move {
            let number: u32 = receiver.await.unwrap();
            // Nobody has the strand any more, so this is a task of tokio's.
            spawn(async move {
                let strand = CURRENT.try_with(|_| ()).is_ok();
                *sees.lock().unwrap() = Some(strand);
            })
            .await
            .unwrap();
            number
        });
        drop(strand);
        yield_now().await;
        assert!(weak.upgrade().is_none());
        sender.send(7).unwrap();
        let joined = timeout(Duration::from_secs(10), task).await;
        assert_eq!(joined.unwrap(), Ok(7));
        assert_eq!(*seen.lock().unwrap(), Some(false));
        yield_now().await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks, 0, "it has ended too");
    }
}
