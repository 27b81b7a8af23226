//! Whose the files are when `reckon up` runs through sudo: the caller's, and not root's.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// None: the files are whose the process is.
    pub fn of_caller() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        match (id("SUDO_UID")?, id("SUDO_GID")?) {
            (0, _) => None,
            (uid, gid) => Some(Self { uid, gid }),
        }
    }

    pub fn give(self, path: &Path) -> Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to user {}", path.display(), self.uid))
    }

    /// A folder and what is in it. Passes over what is the owner's already, so that a second start is quick.
    pub fn give_all(self, path: &Path) -> Result<()> {
        let reading = || format!("cannot read {}", path.display());
        let metadata = path.symlink_metadata().with_context(reading)?;
        if (metadata.uid(), metadata.gid()) != (self.uid, self.gid) {
            self.give(path)?;
        }
        if metadata.is_dir() {
            for entry in path.read_dir().with_context(reading)? {
                self.give_all(&entry.with_context(reading)?.path())?;
            }
        }
        Ok(())
    }
}
