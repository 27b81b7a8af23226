//! The directory that a cluster of `reckon up` lives in: what lies where, whose it is, and that one `up` at a time has it.
//!
//!     admin.kubeconfig   for kubectl                     server-1/      a server's log and state
//!     cluster.json       what a second `up` must keep    server-1.log   what it said
//!     images/            archives that agents import     server-1.pid   while it runs
//!     pki/               certificates and keys           up.lock        held, with the pid, while `up` runs

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::owner::Owner;
use crate::files;

/// A log that has grown beyond this is put aside when its member starts; one such is kept.
const MAX_LOG_BYTES: u64 = 64 << 20;
/// Lines shown of the log of a member that failed.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 << 10;

pub struct Directory {
    root: PathBuf,
    owner: Option<Owner>,
    _lock: Flock<File>,
}

/// What the servers' own state has been built on.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    pub servers: u32,
    /// With how many the cluster began, where it has grown since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_members: Option<u32>,
    pub api_port: u16,
    /// The host under which the servers know each other.
    pub host: String,
}

impl Recorded {
    /// With how many the cluster began. The others join it.
    pub fn first_members(&self) -> u32 {
        self.first_members.unwrap_or(self.servers)
    }
}

impl Directory {
    /// Makes it if it is not there. `root` is absolute.
    pub fn open(root: &Path, owner: Option<Owner>) -> Result<Self> {
        let fresh = !root.exists();
        fs::create_dir_all(root)
            .with_context(|| format!("cannot make the directory {}", root.display()))?;
        let lock = lock(root)?;
        let directory = Self {
            root: root.to_path_buf(),
            owner,
            _lock: lock,
        };
        if fresh {
            directory.give(root)?;
        }
        directory.give(&root.join("up.lock"))?;
        directory.folder("images")?;
        Ok(directory)
    }

    /// Fails when another `up` has it. Makes nothing.
    pub fn check_free(root: &Path) -> Result<()> {
        if root.join("up.lock").exists() {
            lock(root).map(drop)
        } else {
            Ok(())
        }
    }

    pub fn recorded(root: &Path) -> Result<Option<Recorded>> {
        let path = root.join("cluster.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} cannot be read", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn record(&self, recorded: &Recorded) -> Result<()> {
        let text = serde_json::to_string_pretty(recorded).context("cannot write JSON")? + "\n";
        self.write("cluster.json", text.as_bytes(), 0o644)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder of it that belongs to the owner, all that is in it included.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        if let Some(owner) = self.owner {
            owner.give_all(&path)?;
        }
        Ok(path)
    }

    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        files::replace(&self.path(name), bytes, mode, |beside| self.give(beside))
    }

    pub fn remove(&self, name: &str) {
        // What is gone already is as it should be; what cannot be removed is overwritten by the next start.
        let _ = fs::remove_file(self.path(name));
    }

    /// A member's log, to append to.
    pub fn log(&self, member: &str) -> Result<File> {
        let path = self.path(&format!("{member}.log"));
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            let _ = fs::rename(&path, self.path(&format!("{member}.log.1")));
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.give(&path)?;
        Ok(file)
    }

    /// The last lines of a member's log.
    pub fn log_tail(&self, member: &str) -> String {
        let tail = || -> std::io::Result<String> {
            let mut file = File::open(self.path(&format!("{member}.log")))?;
            let length = file.metadata()?.len();
            file.seek(std::io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
        };
        tail().unwrap_or_default()
    }

    fn give(&self, path: &Path) -> Result<()> {
        self.owner.map_or(Ok(()), |owner| owner.give(path))
    }
}

fn lock(root: &Path) -> Result<Flock<File>> {
    let path = root.join("up.lock");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.with_context(|| {
        format!(
            "cannot use the directory {}: {} cannot be opened",
            root.display(),
            path.display()
        )
    })?;
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let write = lock
                .set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| writeln!(lock, "{}", std::process::id()));
            write.with_context(|| format!("cannot write {}", path.display()))?;
            Ok(lock)
        }
        Err((_, _)) => bail!(
            "the directory {} is in use by another 'reckon up', process {}: stop that one, or take another with --data-dir",
            root.display(),
            if holder.trim().is_empty() {
                "unknown"
            } else {
                holder.trim()
            }
        ),
    }
}
