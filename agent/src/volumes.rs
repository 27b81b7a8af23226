//! A pod's volumes on disk and the mounts that containers get of them: emptyDir, hostPath, configMap, secret, projected, downwardAPI;
//! also /etc/hosts and the termination message, which are mounts likewise.
//!
//! Everything lies below one directory a pod, so that cleaning up is unmounting and removing that. Files of ConfigMaps and Secrets change
//! all at once (`atomic`). It blocks on the disk: call it off the async threads. It never follows a path out of a volume.

pub mod atomic;
mod sources;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use k8s_cri::v1 as cri;
use nix::mount::{MntFlags, MsFlags};
use thiserror::Error;

use crate::env::{Downward, EnvError};
use crate::objects::{Missing, Objects};
use crate::pod::{Container, EmptyDir, HostPath, Pod, Volume};
use crate::quantity;

#[derive(Debug, Error)]
pub enum VolumeError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Downward(#[from] EnvError),
    #[error("hostPath type check failed: {0}")]
    HostPath(String),
    #[error("volume {0:?}: this kind of volume is not supported")]
    Unsupported(String),
    #[error("volume mount {0:?} names no volume of the pod")]
    NoVolume(String),
    #[error("path {0:?} leads out of its volume")]
    Escapes(String),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Adds the path to an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> VolumeError + '_ {
    move |error| VolumeError::Io {
        path: path.to_owned(),
        error,
    }
}

/// Where a pod's files are.
#[derive(Debug, Clone)]
pub struct PodDirs {
    root: PathBuf,
}

impl PodDirs {
    pub fn new(pods: &Path, uid: &str) -> Self {
        PodDirs {
            root: pods.join(uid),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    pub fn etc_hosts(&self) -> PathBuf {
        self.root.join("etc-hosts")
    }

    pub fn termination(&self, container: &str, attempt: u32) -> PathBuf {
        self.root
            .join("containers")
            .join(format!("{container}-{attempt}.termination"))
    }
}

/// Makes all volumes of the pod, or brings them up to date. Doing it again does nothing.
pub fn prepare(
    dirs: &PodDirs,
    objects: &Objects,
    downward: &Downward<'_>,
) -> Result<(), VolumeError> {
    fs::create_dir_all(dirs.root.join("containers")).map_err(at(&dirs.root))?;
    for volume in &downward.pod.spec.volumes {
        prepare_one(volume, dirs, objects, downward)?;
    }
    Ok(())
}

fn prepare_one(
    volume: &Volume,
    dirs: &PodDirs,
    objects: &Objects,
    downward: &Downward<'_>,
) -> Result<(), VolumeError> {
    let dir = dirs.volume(&volume.name);
    let fs_group = downward
        .pod
        .spec
        .security_context
        .fs_group
        .and_then(|group| u32::try_from(group).ok());
    if let Some(empty) = &volume.empty_dir {
        return empty_dir(empty, &dir, fs_group);
    }
    if let Some(host) = &volume.host_path {
        return host_path(host);
    }
    match sources::files(volume, objects, downward)? {
        Some(files) => {
            fs::create_dir_all(&dir).map_err(at(&dir))?;
            atomic::write(&dir, &files, fs_group).map_err(at(&dir))
        }
        None => Err(VolumeError::Unsupported(volume.name.clone())),
    }
}

fn empty_dir(empty: &EmptyDir, dir: &Path, fs_group: Option<u32>) -> Result<(), VolumeError> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).map_err(at(dir))?;
    if empty.medium == "Memory"
        && !mounts_below(dir)
            .map_err(at(dir))?
            .iter()
            .any(|mounted| mounted == dir)
    {
        let size =
            quantity::whole(&empty.size_limit).map_or("50%".to_owned(), |bytes| bytes.to_string());
        let options = format!("mode=0777,size={size}");
        nix::mount::mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(|error| at(dir)(error.into()))?;
    }
    if fresh {
        let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
        if let Some(group) = fs_group {
            chown(dir, None, Some(group)).map_err(at(dir))?;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(at(dir))?;
    }
    Ok(())
}

fn host_path(host: &HostPath) -> Result<(), VolumeError> {
    let path = Path::new(&host.path);
    let kind = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let refuse = |what: &str| {
        Err(VolumeError::HostPath(format!(
            "{} is not {what}",
            host.path
        )))
    };
    match (host.kind.as_str(), kind) {
        ("DirectoryOrCreate", None) => fs::create_dir_all(path).map_err(at(path)),
        ("FileOrCreate", None) => fs::File::create(path).map(drop).map_err(at(path)),
        ("Directory" | "DirectoryOrCreate", Some(kind)) if kind.is_dir() => Ok(()),
        ("File" | "FileOrCreate", Some(kind)) if kind.is_file() => Ok(()),
        ("Socket", Some(kind)) if kind.is_socket() => Ok(()),
        ("CharDevice", Some(kind)) if kind.is_char_device() => Ok(()),
        ("BlockDevice", Some(kind)) if kind.is_block_device() => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => refuse("a directory"),
        ("File" | "FileOrCreate", _) => refuse("a file"),
        ("Socket", _) => refuse("a socket file"),
        ("CharDevice", _) => refuse("a character device"),
        ("BlockDevice", _) => refuse("a block device"),
        // Unset: no check, as in Kubernetes; a path that is not there becomes a directory.
        (_, Some(_)) => Ok(()),
        (_, None) => fs::create_dir_all(path).map_err(at(path)),
    }
}

/// The mounts of one attempt of a container. `expand` resolves `subPathExpr`.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    dirs: &PodDirs,
    expand: &dyn Fn(&str) -> String,
) -> Result<Vec<cri::Mount>, VolumeError> {
    let mut mounts = Vec::new();
    for mount in &container.volume_mounts {
        let volume = pod
            .spec
            .volumes
            .iter()
            .find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| VolumeError::NoVolume(mount.name.clone()))?;
        let base = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => dirs.volume(&volume.name),
        };
        let sub_path = if mount.sub_path_expr.is_empty() {
            mount.sub_path.clone()
        } else {
            expand(&mount.sub_path_expr)
        };
        let host = if sub_path.is_empty() {
            base
        } else {
            inside(&base, &sub_path)?
        };
        let propagation = match mount.mount_propagation.as_str() {
            "HostToContainer" => cri::MountPropagation::PropagationHostToContainer,
            "Bidirectional" => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        mounts.push(cri::Mount {
            container_path: mount.mount_path.clone(),
            host_path: host.to_string_lossy().into_owned(),
            // What a container writes into a ConfigMap would be lost at the next change, so it can't.
            readonly: mount.read_only || (volume.empty_dir.is_none() && volume.host_path.is_none()),
            propagation: propagation.into(),
            ..Default::default()
        });
    }
    let mounted =
        |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|mount| mount.container_path == path);
    if !pod.spec.host_network && !mounted("/etc/hosts", &mounts) {
        mounts.push(file_mount("/etc/hosts", &dirs.etc_hosts()));
    }
    let message_path = container
        .termination_message_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    if !message_path.is_empty() && !mounted(message_path, &mounts) {
        let file = dirs.termination(&container.name, attempt);
        if !file.exists() {
            fs::create_dir_all(dirs.root.join("containers")).map_err(at(&file))?;
            fs::File::create(&file).map_err(at(&file))?;
            // Any user of the container writes to it, as the kubelet has it.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).map_err(at(&file))?;
        }
        mounts.push(file_mount(message_path, &file));
    }
    Ok(mounts)
}

fn file_mount(container_path: &str, host_path: &Path) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

/// `base/sub`, made as a directory if it is not there, and after all links are followed still below `base`.
fn inside(base: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let escapes = || VolumeError::Escapes(sub.to_owned());
    if !Path::new(sub)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(escapes());
    }
    let base = base.canonicalize().map_err(at(base))?;
    let mut path = base.clone();
    for part in Path::new(sub).components() {
        path.push(part);
        if !path.exists() {
            fs::create_dir(&path).map_err(at(&path))?;
        }
        path = path.canonicalize().map_err(at(&path))?;
        if !path.starts_with(&base) {
            return Err(escapes());
        }
    }
    Ok(path)
}

/// Writes the pod's /etc/hosts: its own address and names, and its host aliases.
pub fn write_etc_hosts(dirs: &PodDirs, pod: &Pod, ips: &[String]) -> Result<(), VolumeError> {
    let path = dirs.etc_hosts();
    fs::create_dir_all(&dirs.root).map_err(at(&dirs.root))?;
    fs::write(&path, etc_hosts(pod, ips)).map_err(at(&path))
}

fn etc_hosts(pod: &Pod, ips: &[String]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let hostname = hostname(pod);
    for ip in ips {
        text.push_str(&match pod.spec.subdomain.as_str() {
            "" => format!("{ip}\t{hostname}\n"),
            subdomain => {
                format!(
                    "{ip}\t{hostname}.{subdomain}.{}.svc.cluster.local\t{hostname}\n",
                    pod.metadata.namespace
                )
            }
        });
    }
    for alias in &pod.spec.host_aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

/// `spec.hostname`, else the pod's name, at most 63 bytes as Linux and DNS have it.
pub fn hostname(pod: &Pod) -> String {
    let name = if pod.spec.hostname.is_empty() {
        &pod.metadata.name
    } else {
        &pod.spec.hostname
    };
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Unmounts and removes all of the pod's files. Nothing there is fine.
pub fn clean_up(dirs: &PodDirs) -> Result<(), VolumeError> {
    for mounted in mounts_below(&dirs.root).map_err(at(&dirs.root))? {
        if nix::mount::umount(&mounted).is_err() {
            nix::mount::umount2(&mounted, MntFlags::MNT_DETACH)
                .map_err(|error| at(&mounted)(error.into()))?;
        }
    }
    match fs::remove_dir_all(&dirs.root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&dirs.root)(error)),
        _ => Ok(()),
    }
}

/// Mount points at or below a directory, the deepest first.
pub fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let Ok(dir) = dir.canonicalize() else {
        return Ok(Vec::new());
    };
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ").replace("\\134", "\\")))
        .filter(|path| path.starts_with(&dir))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(found)
}

#[cfg(test)]
#[path = "volumes/tests.rs"]
mod tests;
