//! Three members of one system on this machine, each a process of its own: started, measured, stopped, killed.

mod etcd;
mod reckon;

use crate::pki::Pki;
use crate::target::Connection;
use crate::usage::{Usage, resident_bytes};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

pub const MEMBERS: usize = 3;
/// To elect a leader and take a write on each member; a restart with much history included.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Lines shown of the log of a member that ended.
const TAIL_LINES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Etcd,
    Reckon,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Etcd => "etcd",
            Self::Reckon => "Reckon",
        })
    }
}

/// Where the programs are, and where everything that they write goes.
#[derive(Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub etcd: PathBuf,
    pub reckon: PathBuf,
}

impl Place {
    /// Removes what ended clusters left.
    pub fn clear(&self) -> Result<()> {
        for system in [System::Etcd, System::Reckon] {
            let root = self.directory.join(system.to_string());
            if root.exists() {
                std::fs::remove_dir_all(&root)
                    .with_context(|| format!("cannot remove {}", root.display()))?;
            }
        }
        Ok(())
    }
}

/// One system's members: their places on the disk and their ports outlive their processes.
pub struct Cluster {
    system: System,
    pub pki: Pki,
    members: Vec<Member>,
}

struct Member {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Where clients reach it: `127.0.0.1:port`.
    address: String,
    running: Option<Child>,
}

/// What a member's command line is made of.
struct Spot {
    name: String,
    directory: PathBuf,
    client: String,
    peer: String,
}

impl Cluster {
    /// Lays a cluster out; nothing runs yet.
    pub fn lay_out(system: System, place: &Place) -> Result<Self> {
        let root = place.directory.join(system.to_string());
        let spots: Vec<Spot> = (1..=MEMBERS)
            .map(|number| {
                let name = format!("server-{number}");
                let directory = root.join(&name);
                Ok(Spot {
                    name,
                    directory,
                    client: format!("127.0.0.1:{}", free_port()?),
                    peer: format!("127.0.0.1:{}", free_port()?),
                })
            })
            .collect::<Result<_>>()?;
        let names: Vec<String> = spots.iter().map(|spot| spot.name.clone()).collect();
        let pki = Pki::make(&root.join("pki"), &names)?;
        let members = spots
            .iter()
            .map(|spot| Member {
                name: spot.name.clone(),
                program: match system {
                    System::Etcd => place.etcd.clone(),
                    System::Reckon => place.reckon.clone(),
                },
                arguments: match system {
                    System::Etcd => etcd::arguments(spot, &spots, &pki),
                    System::Reckon => reckon::arguments(spot, &spots, &pki),
                },
                log: root.join(format!("{}.log", spot.name)),
                address: spot.client.clone(),
                running: None,
            })
            .collect();
        Ok(Self {
            system,
            pki,
            members,
        })
    }

    pub fn system(&self) -> System {
        self.system
    }

    /// Starts all members and waits until each has taken a write. How long that took.
    pub async fn start(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for member in &mut self.members {
            member.start()?;
        }
        for number in 0..self.members.len() {
            self.wait_for_write(number, started + START_LIMIT).await?;
        }
        Ok(started.elapsed())
    }

    async fn wait_for_write(&mut self, number: usize, until: Instant) -> Result<()> {
        loop {
            let written = async {
                let mut connection = self.connect(number).await?;
                connection.put("ready", b"yes".as_slice().into()).await
            };
            let failure = match timeout(Duration::from_secs(5), written).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within 5 s"),
            };
            let member = &mut self.members[number];
            if let Some(child) = &mut member.running
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "{} of {} ended ({status}); its log ends with:\n{}",
                    member.name,
                    self.system,
                    tail(&member.log)
                );
            }
            if Instant::now() > until {
                return Err(failure).with_context(|| {
                    format!(
                        "{} of {} takes no write after {} s; its log ends with:\n{}",
                        member.name,
                        self.system,
                        START_LIMIT.as_secs(),
                        tail(&member.log)
                    )
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// A connection of its own to a member.
    pub async fn connect(&self, number: usize) -> Result<Connection> {
        Connection::open(self.system, &self.members[number].address, &self.pki).await
    }

    /// So many connections, in turn to each member.
    pub async fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            connections.push(self.connect(number % self.members.len()).await?);
        }
        Ok(connections)
    }

    /// `127.0.0.1:port` of each member.
    pub fn addresses(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.address.clone())
            .collect()
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(&self.pids())
    }

    /// Each member's, in bytes.
    pub fn resident(&self) -> Result<Vec<u64>> {
        self.pids().into_iter().map(resident_bytes).collect()
    }

    /// One member's, in bytes.
    pub fn resident_of(&self, number: usize) -> Result<u64> {
        let running = self.members[number].running.as_ref();
        let pid = running.and_then(Child::id);
        resident_bytes(pid.context("it does not run")?)
    }

    fn pids(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter_map(|member| member.running.as_ref()?.id())
            .collect()
    }

    /// Asks all members to end, and waits for it.
    pub async fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM).await
    }

    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        for member in &self.members {
            member.signal(signal)?;
        }
        for member in &mut self.members {
            member.ended().await?;
        }
        Ok(())
    }

    /// Asks one member to end, and waits for it.
    pub async fn stop_one(&mut self, number: usize) -> Result<()> {
        self.members[number].signal(Signal::SIGTERM)?;
        self.members[number].ended().await
    }

    pub fn start_one(&mut self, number: usize) -> Result<()> {
        self.members[number].start()
    }
}

impl Member {
    fn start(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.running = Some(child);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.running.as_ref().and_then(Child::id) {
            // Not waited for yet, so the pid is still its own.
            kill(Pid::from_raw(pid as i32), signal)
                .with_context(|| format!("cannot signal {}", self.name))?;
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<()> {
        if let Some(mut child) = self.running.take()
            && timeout(STOP_LIMIT, child.wait()).await.is_err()
        {
            child.kill().await?;
        }
        Ok(())
    }
}

/// Free now; taken within the second.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
