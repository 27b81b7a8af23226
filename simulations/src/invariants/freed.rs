//! What has ended is let go: a server that crashed is soon held by nobody, and a run that is over leaves nothing behind. A task or a
//! ring of handles that keeps a dead server alive costs memory for as long as the process lives, and its raft goes on ticking.

use super::Violation;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const INVARIANT: &str = "the dead are let go";
/// What was under way in a server when it crashed fails sooner.
const LINGERS_MAX: Duration = Duration::from_secs(60);

/// All lives of all servers of a run, watched through something that every part of a life holds.
#[derive(Clone, Default)]
pub struct Lives(Arc<Mutex<Vec<Life>>>);

struct Life {
    server: String,
    number: usize,
    /// None: it lives.
    ended: Option<Instant>,
    handles: Box<dyn Fn() -> usize + Send>,
}

impl Lives {
    /// A life begins whose every part holds `token`.
    pub fn begin<T: Send + Sync + 'static>(&self, server: &str, token: &Arc<T>) {
        let mut lives = self.lock();
        let held = Arc::downgrade(token);
        let number = 1 + lives.iter().filter(|life| life.server == server).count();
        lives.push(Life {
            server: server.to_owned(),
            number,
            ended: None,
            handles: Box::new(move || held.strong_count()),
        });
    }

    /// The server's present life ends.
    pub fn end(&self, server: &str) {
        let mut lives = self.lock();
        let living = lives.iter_mut().rfind(|life| life.server == server);
        if let Some(life) = living {
            life.ended = Some(Instant::now());
        }
    }

    /// As the run goes: none that ended a while ago is held.
    pub fn let_go(&self) -> Result<(), Violation> {
        let late = |life: &Life| life.ended.is_some_and(|at| at.elapsed() > LINGERS_MAX);
        self.check(late, "a minute after its crash")
    }

    /// After the run: none is held at all.
    pub fn all_let_go(&self) -> Result<(), Violation> {
        self.check(|_| true, "after the run")
    }

    fn check(&self, must: impl Fn(&Life) -> bool, when: &str) -> Result<(), Violation> {
        for life in self.lock().iter().filter(|life| must(life)) {
            let handles = (life.handles)();
            if handles > 0 {
                let (server, number) = (&life.server, life.number);
                return Err(Violation::new(
                    INVARIANT,
                    format!("{handles} handles keep life {number} of {server} {when}"),
                ));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Life>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_who_is_held() {
        // Rows: (crashes, kept, seconds later, held as the run goes, held after it)
        for (crashes, kept, later_s, as_it_goes, after) in [
            (false, true, 100, false, true),
            (true, true, 10, false, true),
            (true, true, 100, true, true),
            (true, false, 100, false, false),
        ] {
            let lives = Lives::default();
            let token = Arc::new(());
            lives.begin("server-1", &token);
            if crashes {
                lives.end("server-1");
            }
            let _kept = kept.then_some(token);
            tokio::time::sleep(Duration::from_secs(later_s)).await;
            let row = (crashes, kept, later_s);
            assert_eq!(lives.let_go().is_err(), as_it_goes, "{row:?}");
            assert_eq!(lives.all_let_go().is_err(), after, "{row:?}");
        }
    }
}
