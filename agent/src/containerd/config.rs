//! containerd's configuration in the form that its version reads: 2 for containerd 1.6 and 1.7, 3 for 2.x.
//!
//! The cgroup driver is cgroupfs under cgroup v1 and v2 alike: the agent makes no systemd units, and cgroup parents are plain paths.

use std::path::Path;

use super::Installed;

pub(super) struct Settings<'a> {
    pub installed: &'a Installed,
    pub root: &'a Path,
    pub state: &'a Path,
    pub socket: &'a Path,
    pub cni_conf: &'a Path,
    pub sandbox_image: &'a str,
    pub snapshotter: &'a str,
}

pub(super) fn render(settings: &Settings<'_>) -> String {
    let quote = |path: &Path| toml_string(&path.to_string_lossy());
    let (root, state, socket) = (
        quote(settings.root),
        quote(settings.state),
        quote(settings.socket),
    );
    let (cni_bin, cni_conf) = (quote(&settings.installed.cni_bin), quote(settings.cni_conf));
    let (image, snapshotter) = (
        toml_string(settings.sandbox_image),
        toml_string(settings.snapshotter),
    );
    // The opt plugin makes /opt/containerd, and NRI listens on one path for the whole machine: neither is ours alone.
    let head = format!(
        "root = {root}\nstate = {state}\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.nri.v1.nri\"]\n\n\
         [grpc]\n  address = {socket}\n"
    );
    if settings.installed.major >= 2 {
        return format!(
            "version = 3\n{head}\n\
             [plugins.'io.containerd.cri.v1.images']\n  snapshotter = {snapshotter}\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = {image}\n\
             [plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd]\n  default_runtime_name = \"runc\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  SystemdCgroup = false\n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [{cni_bin}]\n  conf_dir = {cni_conf}\n  max_conf_num = 1\n\
             [plugins.'io.containerd.grpc.v1.cri']\n  stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\"\n"
        );
    }
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\n{head}\n\
         [{cri}]\n  sandbox_image = {image}\n  restrict_oom_score_adj = true\n  stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\"\n\
         [{cri}.containerd]\n  snapshotter = {snapshotter}\n  default_runtime_name = \"runc\"\n\
         [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.runc.options]\n  SystemdCgroup = false\n\
         [{cri}.cni]\n  bin_dir = {cni_bin}\n  conf_dir = {cni_conf}\n  max_conf_num = 1\n"
    )
}

/// A basic string: TOML's escapes are a superset of what a path needs.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(major: u32, expected: &[&str]) {
        let installed = Installed {
            containerd: "/usr/bin/containerd".into(),
            ctr: "/usr/bin/ctr".into(),
            cni_bin: "/usr/lib/cni".into(),
            major,
            minor: 6,
        };
        let text = render(&Settings {
            installed: &installed,
            root: Path::new("/d \"x\"/root"),
            state: Path::new("/d/state"),
            socket: Path::new("/d/c.sock"),
            cni_conf: Path::new("/d/cni"),
            sandbox_image: "localhost/pause:1",
            snapshotter: "native",
        });
        for line in expected {
            assert!(
                text.lines().any(|found| found.trim() == *line),
                "no {line:?} in\n{text}"
            );
        }
    }

    #[test]
    fn each_version_gets_its_form() {
        let all = [
            "root = \"/d \\\"x\\\"/root\"",
            "address = \"/d/c.sock\"",
            "snapshotter = \"native\"",
        ];
        check(1, &all);
        check(
            1,
            &[
                "version = 2",
                "sandbox_image = \"localhost/pause:1\"",
                "bin_dir = \"/usr/lib/cni\"",
            ],
        );
        check(2, &all);
        check(
            2,
            &[
                "version = 3",
                "sandbox = \"localhost/pause:1\"",
                "bin_dirs = [\"/usr/lib/cni\"]",
            ],
        );
    }
}
