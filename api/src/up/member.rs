//! One process of the cluster: how it is started, signalled and waited for.
//!
//! The task that waits for a process is also the one that signals it, so that a signal never reaches a stranger who was given the
//! pid of one that has ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::directory::Directory;

/// Signals that wait to be sent to a process.
const SIGNALS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Server,
    Agent,
    SimulatedNodes,
}

/// What to run: `reckon` with these arguments.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub role: Role,
    pub arguments: Vec<OsString>,
    /// What asks it to stop for good.
    pub stop: Signal,
    /// One more argument, with which it only clears away what a former run left, and ends.
    pub removal: Option<&'static str>,
}

/// A process that was started. Its end is told through the channel that `start` was given.
pub struct Running {
    signals: mpsc::Sender<Signal>,
}

pub struct Ended {
    pub member: usize,
    pub status: std::io::Result<ExitStatus>,
}

/// `removal` is the spec's, if it is only to clear away. Must be called on the main thread, which `--follow-parent` watches.
pub fn start(
    member: usize,
    spec: &Spec,
    removal: Option<&str>,
    directory: &Directory,
    ended: mpsc::Sender<Ended>,
) -> Result<Running> {
    let log = directory.log(&spec.name)?;
    let mut command = Command::new(program());
    command
        .arg0("reckon")
        .args(&spec.arguments)
        .args(removal)
        .arg("--follow-parent")
        .arg(std::process::id().to_string());
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log);
    // A group of its own: a terminal's Ctrl-C is for `up`, which stops its members in order.
    command.process_group(0);
    // Only agents need root.
    if let Some(owner) = directory.owner().filter(|_| spec.role != Role::Agent) {
        command.uid(owner.uid).gid(owner.gid);
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", spec.name))?;
    let pid = child.id().context("a process ended before it began")?;
    directory.write(&pid_file(&spec.name), format!("{pid}\n").as_bytes(), 0o644)?;
    let (signals, received) = mpsc::channel(SIGNALS);
    tokio::spawn(watch(member, child, pid, received, ended));
    Ok(Running { signals })
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        // A full queue holds signals that it has not taken yet; a closed one means that it has ended.
        let _ = self.signals.try_send(signal);
    }
}

pub fn pid_file(name: &str) -> String {
    format!("{name}.pid")
}

async fn watch(
    member: usize,
    mut child: Child,
    pid: u32,
    mut signals: mpsc::Receiver<Signal>,
    ended: mpsc::Sender<Ended>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                // It has not been waited for, so the pid is still its own.
                let _ = kill(Pid::from_raw(pid as i32), signal);
            }
        }
    };
    let _ = ended.send(Ended { member, status }).await;
}

/// This binary, even when a build has replaced its file since we started.
fn program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}
