//! Writes a directory of files so that a reader sees all of the old or all of the new: each visible name is a link through `..data`, and
//! `..data` is a link to a directory of its own for each version, exchanged by one rename. The layout is the kubelet's, because
//! programs watch for `..data` to change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Relative path to content and mode.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Makes `dir` show exactly `files`. Unchanged files are left alone.
pub fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let version = version_of(files);
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if old.as_deref() != Some(Path::new(&version)) {
        let target = dir.join(&version);
        // A version that was being written when the agent died.
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir(&target)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        for (path, (content, mode)) in files {
            write_file(&target.join(path), content, *mode, group)?;
        }
        let swap = dir.join("..data_tmp");
        let _ = fs::remove_file(&swap);
        symlink(&version, &swap)?;
        fs::rename(&swap, &data)?;
        if let Some(old) = old {
            fs::remove_dir_all(dir.join(old))?;
        }
    }
    link_names(dir, files)
}

/// A link for each first component of the paths, and none besides.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let names: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = name
            .to_str()
            .is_some_and(|name| !name.starts_with("..") && !names.contains(name));
        if stale && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    let mode = match group {
        Some(group) => {
            chown(path, None, Some(group))?;
            mode | ((mode & 0o400) >> 3)
        }
        None => mode,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// The name of a version's directory: two dots, so that no key can collide with it.
fn version_of(files: &Files) -> String {
    let mut digest = Sha256::new();
    for (path, (content, mode)) in files {
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update(mode.to_le_bytes());
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    let hex: String = digest.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("..{hex}")
}
