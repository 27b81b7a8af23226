//! Whether the servers' ports are free, and who has one that is not.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

pub fn check_free(listen: IpAddr, ports: impl Iterator<Item = u16>) -> Result<()> {
    for port in ports {
        let address = SocketAddr::new(listen, port);
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let by = holder(port)
                    .map(|who| format!(" by {who}"))
                    .unwrap_or_default();
                bail!("port {port} is taken{by}: stop that, or take other ports with --api-port");
            }
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                bail!("this machine has no address {listen}: give one of its own with --listen")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    Ok(())
}

/// `nginx (process 812)`, so far as we may look into /proc: other users' processes only as root.
fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        if descriptors.flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        }) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

/// The inode of the socket in state LISTEN on `port` (proc_pid_net(5): address and state in hexadecimal, the inode tenth).
fn listening_inode(table: &str, port: u16) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local_port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        (local_port == port && *fields.get(3)? == "0A")
            .then(|| fields.get(9).map(|inode| inode.to_string()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_free("127.0.0.1".parse().unwrap(), [port].into_iter())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("port {port} is taken by "))
                && error.contains(&format!("process {})", std::process::id())),
            "{error}"
        );
        drop(taken);
        check_free("127.0.0.1".parse().unwrap(), [port].into_iter()).unwrap();
    }

    #[test]
    fn an_address_of_another_machine() {
        let error = check_free("203.0.113.77".parse().unwrap(), [1_u16].into_iter())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no address 203.0.113.77"), "{error}");
    }
}
