//! Keeps the members running: starts them, starts again what dies, with growing pauses, and stops them in order.
//!
//! It says what happened and leaves it to the caller to tell people.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::directory::Directory;
use super::member::{self, Ended, Role, Running, Spec, pid_file};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A member that has run as long begins again with the first pause.
const STEADY: Duration = Duration::from_secs(60);
/// For a member that clears away what a former run left.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// Ends that wait to be looked at: more than there can be members.
const ENDS: usize = 64;

pub struct Supervisor {
    directory: Arc<Directory>,
    members: Vec<Member>,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    restarts: bool,
}

struct Member {
    spec: Spec,
    state: State,
    /// Before the next start.
    pause: Duration,
    /// Its end was asked for.
    asked_to_stop: bool,
    /// How its last run ended: what ended badly, or without being asked, may have left something behind. An agent that somebody else
    /// stopped has left its pods running.
    ended_well: bool,
}

enum State {
    Down,
    Running { process: Running, since: Instant },
    Pausing { until: Instant },
}

#[derive(Debug)]
pub enum Happened {
    /// With when it is started again, if it is.
    Died {
        name: String,
        how: String,
        again_in: Option<Duration>,
    },
    Restarted {
        name: String,
    },
    CannotStart {
        name: String,
        why: String,
        again_in: Duration,
    },
}

impl Supervisor {
    /// `restarts`: whether what dies is started again, once `keep` is called.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            members: Vec::new(),
            ended: mpsc::channel(ENDS),
            restarts: false,
        }
    }

    pub fn start(&mut self, spec: Spec) -> Result<()> {
        let index = self.members.len();
        self.members.push(Member {
            spec,
            state: State::Down,
            pause: FIRST_PAUSE,
            asked_to_stop: false,
            ended_well: true,
        });
        self.run(index)
    }

    /// From now on what dies is started again.
    pub fn restart_what_dies(&mut self) {
        self.restarts = true;
    }

    /// The next thing that happens. Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self) -> Happened {
        let pausing = self
            .members
            .iter()
            .enumerate()
            .filter_map(|(index, member)| match member.state {
                State::Pausing { until } => Some((until, index)),
                _ => None,
            });
        let due = pausing.min();
        let next_start = async move {
            match due {
                Some((until, index)) => {
                    sleep_until(until).await;
                    index
                }
                None => std::future::pending().await,
            }
        };
        let index = tokio::select! {
            Some(ended) = self.ended.1.recv() => return self.note(ended),
            index = next_start => index,
        };
        let name = self.members[index].spec.name.clone();
        match self.run(index) {
            Ok(()) => Happened::Restarted { name },
            Err(error) => Happened::CannotStart {
                name,
                why: format!("{error:#}"),
                again_in: self.pause(index),
            },
        }
    }

    /// Asks all of these roles to stop, and kills what has not within `limit`. What ended otherwise clears away after itself, if it can.
    /// True when nothing had to be killed and nothing is left.
    pub async fn stop(&mut self, roles: &[Role], limit: Duration) -> bool {
        self.restarts = false;
        let deadline = Instant::now() + limit;
        let concerned: Vec<usize> = (0..self.members.len())
            .filter(|index| roles.contains(&self.members[*index].spec.role))
            .collect();
        for index in &concerned {
            let member = &mut self.members[*index];
            match &member.state {
                State::Running { process, .. } => {
                    process.signal(member.spec.stop);
                    member.asked_to_stop = true;
                }
                _ => member.state = State::Down,
            }
        }
        let clean = self.end(&concerned, deadline).await;
        let mut removing = Vec::new();
        for index in concerned {
            let member = &self.members[index];
            if let Some(removal) = member.spec.removal.filter(|_| !member.ended_well)
                && self.run_with(index, Some(removal)).is_ok()
            {
                removing.push(index);
            }
        }
        let removed = self
            .end(&removing, deadline.max(Instant::now() + REMOVAL_LIMIT))
            .await;
        clean && removed && removing.iter().all(|index| self.members[*index].ended_well)
    }

    /// Waits for these to end, and kills what has not by the deadline. False when something had to be killed.
    async fn end(&mut self, concerned: &[usize], deadline: Instant) -> bool {
        if self.wait_for(concerned, deadline).await {
            return true;
        }
        for index in concerned {
            if let State::Running { process, .. } = &self.members[*index].state {
                process.signal(Signal::SIGKILL);
            }
        }
        // What SIGKILL does not end in as long hangs in the kernel: there is nothing left to do about it.
        self.wait_for(concerned, Instant::now() + Duration::from_secs(5))
            .await;
        false
    }

    /// False when the deadline came first.
    async fn wait_for(&mut self, concerned: &[usize], deadline: Instant) -> bool {
        while concerned
            .iter()
            .any(|index| matches!(self.members[*index].state, State::Running { .. }))
        {
            match timeout_at(deadline, self.ended.1.recv()).await {
                Ok(Some(ended)) => drop(self.note(ended)),
                _ => return false,
            }
        }
        true
    }

    fn run(&mut self, index: usize) -> Result<()> {
        self.run_with(index, None)
    }

    fn run_with(&mut self, index: usize, removal: Option<&str>) -> Result<()> {
        let member = &mut self.members[index];
        let process = member::start(
            index,
            &member.spec,
            removal,
            &self.directory,
            self.ended.0.clone(),
        )?;
        member.state = State::Running {
            process,
            since: Instant::now(),
        };
        member.asked_to_stop = removal.is_some();
        Ok(())
    }

    fn note(&mut self, ended: Ended) -> Happened {
        let member = &mut self.members[ended.member];
        self.directory.remove(&pid_file(&member.spec.name));
        if matches!(member.state, State::Running { since, .. } if since.elapsed() >= STEADY) {
            member.pause = FIRST_PAUSE;
        }
        member.state = State::Down;
        let succeeded = ended.status.as_ref().is_ok_and(|status| status.success());
        member.ended_well = succeeded && member.asked_to_stop;
        let name = member.spec.name.clone();
        let how = match ended.status {
            Ok(status) => status.to_string(),
            Err(error) => format!("cannot be waited for: {error}"),
        };
        let again_in = self.restarts.then(|| self.pause(ended.member));
        Happened::Died {
            name,
            how,
            again_in,
        }
    }

    fn pause(&mut self, index: usize) -> Duration {
        let member = &mut self.members[index];
        let pause = member.pause;
        member.pause = (pause * 2).min(LONGEST_PAUSE);
        member.state = State::Pausing {
            until: Instant::now() + pause,
        };
        pause
    }
}
