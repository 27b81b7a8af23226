//! Writes images as docker archives (`docker save`'s form, which containerd imports): one layer from files and links, and a
//! configuration. The same spec gives the same bytes.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

/// An image of one layer.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// Name and tag: `reckon.local/web:1`.
    pub reference: String,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    pub files: Vec<File>,
    /// Symbolic links: path and target.
    pub links: Vec<(String, String)>,
    /// Empty directories.
    pub directories: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct File {
    /// Without a leading slash.
    pub path: String,
    pub content: Vec<u8>,
    pub mode: u32,
}

/// Writes the image's archive to `path`, whole or not at all.
pub fn build_archive(spec: &ImageSpec, path: &Path) -> io::Result<()> {
    let layer = layer(spec)?;
    let layer_digest = hex(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": spec.entrypoint,
            "Cmd": spec.command,
            "Env": spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "WorkingDir": spec.working_dir,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "reckon"}],
    }))?;
    let config_name = format!("{}.json", hex(&config));
    let layer_name = format!("{layer_digest}/layer.tar");
    let manifest = serde_json::to_vec(&json!([{
        "Config": config_name, "RepoTags": [spec.reference], "Layers": [layer_name],
    }]))?;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [
        (config_name, &config),
        (layer_name, &layer),
        ("manifest.json".to_owned(), &manifest),
    ] {
        append(&mut tar, &name, content, 0o644)?;
    }
    let bytes = tar.into_inner()?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // The importer takes no file of this ending.
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(part, path)
}

/// An image for tests and tours, from a static busybox: all its applets in /bin, a web server on 8080 that serves /www, where
/// `version` holds the version and `index.html` a greeting with it.
pub fn busybox_image(reference: &str, version: &str) -> Result<ImageSpec, super::ImageError> {
    let busybox = super::static_busybox().ok_or(super::ImageError::NoBusybox)?;
    let failed = |error| super::ImageError::Io {
        path: busybox.clone(),
        error,
    };
    let content = fs::read(&busybox).map_err(failed)?;
    let output = std::process::Command::new(&busybox)
        .arg("--list")
        .output()
        .map_err(failed)?;
    let applets = String::from_utf8_lossy(&output.stdout).into_owned();
    let link = |applet: &str| (format!("bin/{applet}"), "/bin/busybox".to_owned());
    let text = |path: &str, content: String| File {
        path: path.to_owned(),
        content: content.into_bytes(),
        mode: 0o644,
    };
    Ok(ImageSpec {
        reference: reference.to_owned(),
        entrypoint: vec![],
        command: ["httpd", "-f", "-p", "8080", "-h", "/www"]
            .map(str::to_owned)
            .to_vec(),
        env: vec![
            ("PATH".to_owned(), "/bin".to_owned()),
            ("VERSION".to_owned(), version.to_owned()),
        ],
        working_dir: "/".to_owned(),
        files: vec![
            File {
                path: "bin/busybox".to_owned(),
                content,
                mode: 0o755,
            },
            text("www/version", format!("{version}\n")),
            text(
                "www/index.html",
                format!("Hello from Reckon, version {version}\n"),
            ),
            text(
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n".to_owned(),
            ),
            text("etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        ],
        links: applets
            .lines()
            .filter(|applet| *applet != "busybox")
            .map(link)
            .collect(),
        directories: ["tmp", "root", "proc", "sys", "dev", "var"]
            .map(str::to_owned)
            .to_vec(),
    })
}

fn layer(spec: &ImageSpec) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    let parents = spec
        .files
        .iter()
        .map(|file| &file.path)
        .chain(spec.links.iter().map(|(path, _)| path));
    let mut directories = std::collections::BTreeSet::new();
    for path in parents {
        let mut parent = Path::new(path).parent();
        while let Some(dir) = parent.filter(|dir| !dir.as_os_str().is_empty()) {
            directories.insert(dir.to_string_lossy().into_owned());
            parent = dir.parent();
        }
    }
    directories.extend(spec.directories.iter().cloned());
    for dir in directories.iter().filter(|dir| made.insert((*dir).clone())) {
        let mut header = header(
            tar::EntryType::Directory,
            if dir == "tmp" { 0o1777 } else { 0o755 },
            0,
        );
        tar.append_data(&mut header, format!("{dir}/"), io::empty())?;
    }
    for file in &spec.files {
        append(&mut tar, &file.path, &file.content, file.mode)?;
    }
    for (path, target) in &spec.links {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, path, target)?;
    }
    tar.into_inner()
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// This machine's, by the names of OCI.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_its_parts_by_digest() {
        let dir = tempfile::tempdir().unwrap();
        let spec = ImageSpec {
            reference: "reckon.local/t:1".into(),
            command: vec!["/bin/x".into()],
            files: vec![File {
                path: "bin/x".into(),
                content: b"#!".to_vec(),
                mode: 0o755,
            }],
            links: vec![("bin/y".into(), "/bin/x".into())],
            ..ImageSpec::default()
        };
        let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
        build_archive(&spec, &one).unwrap();
        build_archive(&spec, &two).unwrap();
        assert_eq!(
            fs::read(&one).unwrap(),
            fs::read(&two).unwrap(),
            "the same spec gives the same bytes"
        );
        let mut parts = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(fs::File::open(&one).unwrap())
            .entries()
            .unwrap()
        {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            parts.insert(
                entry.path().unwrap().to_string_lossy().into_owned(),
                content,
            );
        }
        let manifest: serde_json::Value = serde_json::from_slice(&parts["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "reckon.local/t:1");
        let config_name = manifest[0]["Config"].as_str().unwrap();
        assert_eq!(config_name, format!("{}.json", hex(&parts[config_name])));
        let config: serde_json::Value = serde_json::from_slice(&parts[config_name]).unwrap();
        let layer = &parts[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hex(layer))
        );
        let names: Vec<String> = tar::Archive::new(layer.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(names, ["bin/", "bin/x", "bin/y"]);
    }
}
