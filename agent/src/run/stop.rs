//! Takes everything away that an agent has in the kernel: pods, containerd, bridge, rules, cgroups, mounts. What is on disk stays: images
//! are dear, and a second start is to be quick.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use super::{AgentError, Pods};
use crate::cni::{self, Names, Network};
use crate::containerd::Containerd;
use crate::volumes;
use crate::worker::NodeContext;

/// How long all pods together may take to stop, their graces included.
const HALT_TIMEOUT: Duration = Duration::from_secs(60);
const REMOVE_TRIES: u32 = 20;
const REMOVE_WAIT: Duration = Duration::from_millis(50);

pub(super) async fn remove_all(
    context: &NodeContext,
    containerd: &Containerd,
    network: &Network,
    names: &Names,
    data_dir: &Path,
    pods: Pods,
) -> Result<(), AgentError> {
    let halted = timeout(
        HALT_TIMEOUT,
        futures::future::join_all(pods.into_values().map(|(_, task)| task)),
    )
    .await;
    if halted.is_err() {
        tracing::warn!("pods do not stop: their containers are removed by force");
    }
    remove_what_is_left(context).await;
    containerd.stop().await?;
    let (network, names, data_dir) = (network.clone(), names.clone(), data_dir.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        cni::remove(&network, &names, &data_dir.join("cni"));
        for mounted in volumes::mounts_below(&data_dir).unwrap_or_default() {
            let _ = nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH);
        }
        for dir in cgroups(&names) {
            remove_cgroup(&dir);
        }
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "something was left behind");
    }
    Ok(())
}

/// Sandboxes that no worker took down.
async fn remove_what_is_left(context: &NodeContext) {
    let Ok(held) = context.runtime.list().await else {
        return;
    };
    for uid in held.keys() {
        let Ok(observed) = context.runtime.observe(uid).await else {
            continue;
        };
        for sandbox in observed.sandboxes {
            let stopped = context.runtime.stop_sandbox(&sandbox.id).await;
            if let Err(error) = stopped.and(context.runtime.remove_sandbox(&sandbox.id).await) {
                tracing::warn!(sandbox = sandbox.id, %error, "a sandbox is left");
            }
        }
    }
}

/// Our cgroups: one under cgroup v2, one for each controller under v1.
fn cgroups(names: &Names) -> Vec<PathBuf> {
    let own = names.cgroup_parent();
    let own = own.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(own));
    std::iter::once(root.join(own))
        .chain(controllers)
        .filter(|dir| dir.is_dir())
        .collect()
}

/// A cgroup's files can't be removed, its directories can, the inner ones first. Processes that are still in one were some container's.
fn remove_cgroup(dir: &Path) {
    for pid in fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // A process that was killed leaves its cgroup a moment later.
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(REMOVE_WAIT)
            }
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(cgroup = %dir.display(), %error, "a cgroup is left");
                return;
            }
        }
    }
    tracing::warn!(cgroup = %dir.display(), "a cgroup is left: it is in use");
}
