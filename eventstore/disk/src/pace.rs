//! Who waits for a change is woken a few at a time.
//!
//! A thousand watches that all become ready at once would be a thousand tasks before everything else this server has to do, the next write
//! included. So they take turns with it: some are woken, what else is ready runs, then the next are.

use crate::Store;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::sync::Notify;

/// Woken at once.
const AT_ONCE: usize = 32;

/// Those who wait in a lane, each under the number of its cursor.
pub(crate) type Sleepers = BTreeMap<u64, Waker>;

#[derive(Default)]
pub(crate) struct Pace {
    due: Mutex<VecDeque<Waker>>,
    handed: Notify,
    /// Somebody takes from `due`.
    kept: AtomicBool,
}

impl Pace {
    fn due(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Few are woken here and now; of many, it is left to who keeps the pace, if anybody does.
    pub fn wake(&self, sleepers: Sleepers) {
        let mut due = self.due();
        if !self.kept.load(Ordering::Acquire) || (due.is_empty() && sleepers.len() <= AT_ONCE) {
            drop(due);
            sleepers.into_values().for_each(Waker::wake);
            return;
        }
        due.extend(sleepers.into_values());
        drop(due);
        self.handed.notify_one();
    }

    /// Wakes the next few. False when nobody was left.
    fn turn(&self) -> bool {
        let mut due = self.due();
        let count = due.len().min(AT_ONCE);
        let next: Vec<_> = due.drain(..count).collect();
        drop(due);
        next.into_iter().for_each(Waker::wake);
        count > 0
    }
}

/// Nobody keeps the pace any more: who still waits is woken at once.
struct Kept<'a>(&'a Pace);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let mut due = self.0.due();
        self.0.kept.store(false, Ordering::Release);
        let left = std::mem::take(&mut *due);
        drop(due);
        left.into_iter().for_each(Waker::wake);
    }
}

impl Store {
    /// Lets watches take turns with everything else: to be run beside the store. Without it they are woken all at once.
    pub async fn pace_watches(&self) {
        let pace = &self.0.ring.pace;
        pace.kept.store(true, Ordering::Release);
        let _kept = Kept(pace);
        loop {
            while pace.turn() {
                tokio::task::yield_now().await;
            }
            pace.handed.notified().await;
        }
    }
}
