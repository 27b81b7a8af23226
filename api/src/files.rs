//! Files that are there whole or not at all, for others read them and a machine may stop at any moment.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes beside, makes that `ready` (gives it to its owner, say), and puts it in place.
pub fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    ready: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", beside.display()))?;
    ready(beside)?;
    fs::rename(beside, path).with_context(|| format!("cannot write {}", path.display()))
}
