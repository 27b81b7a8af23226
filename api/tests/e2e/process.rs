//! A `reckon server` that a test starts itself, beside those of `reckon up`: as on another machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, reckon};
use crate::wait;

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// `reckon server` with these arguments; its log lies beside its directory.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        let log = data_dir.with_extension("log");
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap()
        };
        let child = Command::new(reckon())
            .args(["server", "--data-dir", &data_dir.to_string_lossy()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// As `reckon up` starts one of three first members.
    pub fn start_first(cluster: &Cluster, number: u16, folder: &str) -> Self {
        let name = format!("server-{number}");
        let address = |number: u16| format!("127.0.0.1:{}", cluster.port + number - 1);
        let members: Vec<String> = (1..=3)
            .map(|number| format!("server-{number}={}", address(number)))
            .collect();
        let pki = |file: &str| cluster.path(&format!("pki/{file}")).display().to_string();
        let arguments = [
            ("--name", name.clone()),
            ("--listen", address(number)),
            ("--initial-cluster", members.join(",")),
            ("--ca", pki("ca.crt")),
            ("--cert", pki(&format!("{name}.crt"))),
            ("--key", pki(&format!("{name}.key"))),
            ("--ca-key", pki("ca.key")),
        ];
        let arguments: Vec<&str> = arguments
            .iter()
            .flat_map(|(flag, value)| [*flag, value.as_str()])
            .collect();
        Self::start(&cluster.path(folder), &arguments)
    }

    /// As `reckon member add` says, with the key for signing the next one's certificate.
    pub fn join(cluster: &Cluster, folder: &str, listen: &str, added: &Value) -> Self {
        let servers: Vec<&str> = added["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|server| server.as_str().unwrap())
            .collect();
        let (servers, ca_key) = (servers.join(","), cluster.path("pki/ca.key"));
        let arguments = [
            "--listen",
            listen,
            "--join",
            &servers,
            "--token",
            added["token"].as_str().unwrap(),
            "--ca-key",
            &ca_key.to_string_lossy(),
        ];
        Self::start(&cluster.path(folder), &arguments)
    }

    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself; what it said, and whether it ended well.
    pub fn end(mut self, limit_s: u64) -> (bool, String) {
        let status = wait::until("the server to end", limit_s, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.log())
        });
        (status.success(), self.log())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
