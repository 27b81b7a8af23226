//! A containerd of the agent's own, started from the installed binary: root, state, socket and network configuration below the
//! agent's directory, so that it shares nothing with the machine's.
//!
//! It lives in a session of its own and outlives the agent, with all that runs in it; the next agent finds it by its pid file and takes it
//! on. It is stopped only by `stop`.

mod config;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::runtime::ContainerRuntime;
use crate::runtime::cri::CriRuntime;
use crate::volumes;

/// A unix socket's path has at most this many bytes (sun_path, less the NUL); containerd makes one more with `.ttrpc` appended.
const LONGEST_SOCKET: usize = 107 - 6;
/// How long containerd may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long shims whose sandboxes are gone may take to end by themselves.
const SHIM_TIMEOUT: Duration = Duration::from_secs(3);
/// Its log is put aside at a start when it is larger; one such is kept.
const MAX_LOG_BYTES: u64 = 16 << 20;

#[derive(Debug, Error)]
pub enum ContainerdError {
    #[error("{missing} is not installed: apt-get install {package}")]
    NotInstalled {
        missing: String,
        package: &'static str,
    },
    #[error("running containers needs root")]
    NotRoot,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("containerd does not come up: see {log}\n{tail}")]
    NoStart { log: PathBuf, tail: String },
    #[error("cannot read containerd's version from {0:?}")]
    Version(String),
}

/// The programs that containers need, all there.
#[derive(Debug, Clone)]
pub struct Installed {
    pub containerd: PathBuf,
    pub ctr: PathBuf,
    pub cni_bin: PathBuf,
    /// Of containerd: the form of its configuration depends on it.
    pub major: u32,
    pub minor: u32,
}

/// Looks for everything before anything is started; the error names the Debian package to install.
pub fn find_installed() -> Result<Installed, ContainerdError> {
    let need = |program: &str, package: &'static str| {
        find(program).ok_or_else(|| ContainerdError::NotInstalled {
            missing: program.to_owned(),
            package,
        })
    };
    let containerd = need("containerd", "containerd")?;
    let ctr = need("ctr", "containerd")?;
    need("runc", "runc")?;
    need("iptables", "iptables")?;
    need("ip", "iproute2")?;
    let plugins = ["bridge", "host-local", "loopback", "portmap"];
    let cni_bin = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]
        .map(PathBuf::from)
        .into_iter()
        .find(|dir| plugins.iter().all(|plugin| dir.join(plugin).exists()))
        .ok_or(ContainerdError::NotInstalled {
            missing: "the CNI plugins (bridge, host-local, loopback, portmap)".to_owned(),
            package: "containernetworking-plugins",
        })?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ContainerdError::NotRoot);
    }
    let output = std::process::Command::new(&containerd)
        .arg("--version")
        .output()
        .map_err(|error| ContainerdError::Io {
            path: containerd.clone(),
            error,
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (major, minor) = version(&text).ok_or(ContainerdError::Version(text))?;
    Ok(Installed {
        containerd,
        ctr,
        cni_bin,
        major,
        minor,
    })
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1` -> (1, 6).
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = word.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A program on PATH, or where Debian keeps what only root runs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain([
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ])
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|path| {
            fs::metadata(path)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

pub struct Containerd {
    installed: Installed,
    dir: PathBuf,
    run_dir: PathBuf,
    snapshotter: &'static str,
}

impl Containerd {
    /// Writes its configuration below `dir` and starts it, or takes on the one that runs. `name` is unique on the machine: the socket goes to
    /// /run/reckon/`name` where the path below `dir` is too long for one.
    pub async fn start(
        installed: Installed,
        dir: &Path,
        name: &str,
        cni_conf: &Path,
        sandbox_image: &str,
    ) -> Result<Self, ContainerdError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| ContainerdError::Io { path, error }
        };
        fs::create_dir_all(dir).map_err(io(dir))?;
        let dir = dir.canonicalize().map_err(io(dir))?;
        let run_dir = if dir.join("containerd.sock").as_os_str().len() <= LONGEST_SOCKET {
            dir.clone()
        } else {
            Path::new("/run/reckon").join(name)
        };
        fs::create_dir_all(&run_dir).map_err(io(&run_dir))?;
        let snapshotter = if overlay_works(&dir) {
            "overlayfs"
        } else {
            "native"
        };
        let text = config::render(&config::Settings {
            installed: &installed,
            root: &dir.join("root"),
            state: &dir.join("state"),
            socket: &run_dir.join("containerd.sock"),
            cni_conf,
            sandbox_image,
            snapshotter,
        });
        let file = dir.join("config.toml");
        fs::write(&file, text).map_err(io(&file))?;
        let containerd = Containerd {
            installed,
            dir,
            run_dir,
            snapshotter,
        };
        containerd.ensure_running().await?;
        Ok(containerd)
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    pub fn ctr(&self) -> &Path {
        &self.installed.ctr
    }

    pub fn snapshotter(&self) -> &'static str {
        self.snapshotter
    }

    /// Starts it again if it has died. Its containers have not: their shims go on, and it finds them.
    pub async fn ensure_running(&self) -> Result<(), ContainerdError> {
        if self.pid().is_none() {
            self.spawn()?;
        }
        let runtime = CriRuntime::new(&self.socket());
        let begin = Instant::now();
        while runtime.version().await.is_err() {
            let died = self.pid().is_none();
            if died || begin.elapsed() > START_TIMEOUT {
                let log = self.log();
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(5)..].join("\n");
                return Err(ContainerdError::NoStart { log, tail });
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The shims that serve our socket: each names it on its command line.
    fn shims(&self) -> Vec<Pid> {
        let socket = self.socket().to_string_lossy().into_owned();
        let ours = |line: &[u8]| {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let shim = words
                .first()
                .is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"));
            shim && words
                .windows(2)
                .any(|pair| pair[0] == b"-address" && pair[1] == socket.as_bytes())
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| ours(&line))
            })
            .map(Pid::from_raw)
            .collect()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("containerd.pid")
    }

    /// The pid of our containerd, if it lives. The pid file names its start time too, for pids are used again.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid: i32 = pid.parse().ok()?;
        (start_time(pid)? == started).then(|| Pid::from_raw(pid))
    }

    fn spawn(&self) -> Result<(), ContainerdError> {
        let path = self.log();
        let io = |error| ContainerdError::Io {
            path: path.clone(),
            error,
        };
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&path, path.with_extension("log.old")).map_err(io)?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io)?;
        // setsid: neither a Ctrl-C at the agent's terminal nor the agent's end may reach it.
        let mut child = std::process::Command::new("setsid")
            .arg(&self.installed.containerd)
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log)
            .current_dir("/")
            .spawn()
            .map_err(io)?;
        let pid = child.id() as i32;
        let started = start_time(pid).unwrap_or_default();
        // Its end is to be noticed, not to leave a zombie that looks alive.
        std::thread::spawn(move || child.wait());
        fs::write(self.pid_file(), format!("{pid} {started}\n")).map_err(io)
    }

    /// Ends it and its shims, and unmounts what they left. All sandboxes must be gone, else their processes stay without a shim.
    pub async fn stop(&self) -> Result<(), ContainerdError> {
        // containerd tells a shim to end after it has answered that its sandbox is gone: one that is stopped in between leaves it.
        let begin = Instant::now();
        while !self.shims().is_empty() && begin.elapsed() < SHIM_TIMEOUT {
            sleep(Duration::from_millis(50)).await;
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let Some(pid) = self.pid() else { break };
            let _ = kill(pid, signal);
            let begin = Instant::now();
            while self.pid().is_some() && begin.elapsed() < STOP_TIMEOUT {
                sleep(Duration::from_millis(20)).await;
            }
        }
        let _ = fs::remove_file(self.pid_file());
        for shim in self.shims() {
            tracing::info!(%shim, "a shim is left: it is ended");
            let _ = kill(shim, Signal::SIGKILL);
        }
        for mounted in volumes::mounts_below(&self.dir).unwrap_or_default() {
            let _ = nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH);
        }
        if self.run_dir != self.dir {
            let _ = fs::remove_dir_all(&self.run_dir);
        }
        Ok(())
    }
}

/// Clock ticks from boot to the process' start: with its pid, what it is. `None` too for a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19).map(|field| (*field).to_owned())
}

/// Whether overlayfs can be mounted on this file system: inside many containers it can't.
fn overlay_works(dir: &Path) -> bool {
    let probe = dir.join("overlay-probe");
    let part = |name: &str| probe.join(name);
    let made = ["lower", "upper", "work", "merged"]
        .iter()
        .all(|name| fs::create_dir_all(part(name)).is_ok());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        part("lower").display(),
        part("upper").display(),
        part("work").display()
    );
    let mounted = made
        && nix::mount::mount(
            Some("overlay"),
            &part("merged"),
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .is_ok();
    if mounted {
        let _ = nix::mount::umount2(&part("merged"), nix::mount::MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&probe);
    mounted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1",
                Some((1, 6)),
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7",
                Some((2, 1)),
            ),
            ("containerd containerd.io 1.7.27 05044ec", Some((1, 7))),
            ("nonsense", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = start_time(std::process::id() as i32).unwrap();
        assert!(own.parse::<u64>().is_ok(), "{own}");
        assert_eq!(start_time(i32::MAX), None);
    }
}
