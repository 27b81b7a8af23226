//! Members that an earlier `up` left behind when it was killed outright: they were sent SIGTERM by the kernel and are on their way out.
//!
//! Only called while the directory's lock is free, so that whoever still runs from it belongs to nobody.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// For a clean stop; past it they are killed.
const LIMIT: Duration = Duration::from_secs(20);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Returns once none is left, with how many there were.
pub async fn wait_for_end(root: &Path) -> Result<usize> {
    let found = running(root);
    let started = Instant::now();
    let mut killed = false;
    while found.iter().any(|pid| is_member(root, *pid)) {
        if started.elapsed() > LIMIT + KILL_LIMIT {
            bail!(
                "a process of an earlier 'reckon up' in {} cannot be ended: {found:?}",
                root.display()
            );
        }
        if started.elapsed() > LIMIT && !killed {
            killed = true;
            for pid in found.iter().filter(|pid| is_member(root, **pid)) {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for file in pid_files(root) {
        let _ = std::fs::remove_file(file);
    }
    Ok(found.len())
}

fn running(root: &Path) -> Vec<i32> {
    let pids = pid_files(root)
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    pids.filter(|pid| is_member(root, *pid)).collect()
}

fn pid_files(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
        .collect()
}

/// A pid may have been given to a stranger since: ours name this directory on their command line.
fn is_member(root: &Path, pid: i32) -> bool {
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let root = root.to_string_lossy();
    let mut words = command_line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy);
    words.any(|word| {
        word.strip_prefix(&*root)
            .is_some_and(|rest| rest.starts_with('/'))
    })
}
