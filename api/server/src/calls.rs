//! Small calls run on their connection's own task.
//!
//! hyper gives each request of an HTTP/2 connection a task of its own. For a call that only waits for the log that costs more than the call
//! does: a task is made and scheduled, and when an entry of the log answers many, each wakes its connection by itself, which then writes
//! each answer by itself. Here they are polled by the connection, all that are ready in one go. What computes for long, as a list does,
//! keeps a task of its own, for it would hold up the others of its connection.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts a connection's requests. Cheap to clone; clones are of the same connection.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Begun>);

#[derive(Default)]
struct Begun {
    /// The request that hyper is about to hand over stays here.
    next_is_small: AtomicBool,
    small: Mutex<Vec<Call>>,
}

impl Calls {
    /// To be called by the service for a request that stays on the connection's task: hyper hands over its future right after.
    pub fn small(&self) {
        self.0.next_is_small.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Vec<Call> {
        let mut small = self.0.small.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut small)
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Calls {
    fn execute(&self, call: F) {
        if self.0.next_is_small.swap(false, Ordering::Relaxed) {
            let mut small = self.0.small.lock().unwrap_or_else(PoisonError::into_inner);
            small.push(Box::pin(call));
        } else {
            tokio::spawn(call);
        }
    }
}

/// A connection with its small calls.
pub(crate) struct Connection<C> {
    connection: C,
    calls: Calls,
    running: FuturesUnordered<Call>,
}

impl<C> Connection<C> {
    pub fn new(connection: C, calls: Calls) -> Self {
        Self {
            connection,
            calls,
            running: FuturesUnordered::new(),
        }
    }
}

impl<C: Future + Unpin> Future for Connection<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(output) = Pin::new(&mut self.connection).poll(context) {
                return Poll::Ready(output);
            }
            let begun = self.calls.take();
            self.running.extend(begun);
            let mut answered = false;
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {
                answered = true;
            }
            // What they answered with is for the connection to send.
            if !answered {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Executor;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::{Notify, oneshot};
    use tokio::task::yield_now;

    /// A connection that counts how often it is polled, and ends when it is told.
    fn connection(
        polls: Arc<AtomicUsize>,
        end: oneshot::Receiver<()>,
    ) -> impl Future<Output = bool> + Unpin + Send {
        let mut end = Box::pin(end);
        std::future::poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            end.as_mut().poll(context).map(|ended| ended.is_ok())
        })
    }

    #[tokio::test]
    async fn what_is_answered_at_once_is_sent_at_once() {
        const CALLS: usize = 20;
        let (calls, polls) = (Calls::default(), Arc::<AtomicUsize>::default());
        let (applied, done) = (Arc::<Notify>::default(), Arc::<AtomicUsize>::default());
        for _ in 0..CALLS {
            let (applied, done) = (applied.clone(), done.clone());
            calls.small();
            calls.execute(async move {
                applied.notified().await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (end, ended) = oneshot::channel();
        let serving = tokio::spawn(Connection::new(
            connection(polls.clone(), ended),
            calls.clone(),
        ));
        yield_now().await;
        let before = polls.load(Ordering::Relaxed);
        applied.notify_waiters();
        yield_now().await;
        assert_eq!(done.load(Ordering::Relaxed), CALLS);
        assert_eq!(
            polls.load(Ordering::Relaxed) - before,
            2,
            "before and after"
        );
        end.send(()).unwrap();
        assert!(serving.await.unwrap());
    }

    #[tokio::test]
    async fn a_large_call_has_a_task_of_its_own() {
        let calls = Calls::default();
        let (done, answer) = oneshot::channel();
        calls.execute(async move {
            done.send(()).unwrap();
        });
        assert!(calls.take().is_empty());
        answer.await.unwrap();
        // The mark is for one call.
        calls.small();
        calls.execute(async {});
        calls.execute(async {});
        assert_eq!(calls.take().len(), 1);
    }
}
