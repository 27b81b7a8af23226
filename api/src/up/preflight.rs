//! What must be so before anything is made or started. Each failure says what to do.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use super::directory::{Directory, Recorded};
use super::{Request, leftovers, ports};

/// The default of a directory that has none recorded.
const SERVERS: u32 = 3;
const API_PORT: u16 = 6443;

/// Returns what the servers are built on. Makes nothing.
pub async fn check(request: &Request, root: &Path) -> Result<Recorded> {
    if !cfg!(target_os = "linux") {
        bail!("'reckon up' runs on Linux only");
    }
    Directory::check_free(root)?;
    let recorded = settle(request, Directory::recorded(root)?)?;
    if request.agents > 0 {
        if !geteuid().is_root() {
            bail!(
                "agents run containers, which needs root: run 'sudo reckon up …', or go without them with --agents 0"
            );
        }
        agents()?;
    }
    leftovers::wait_for_end(root).await?;
    ports::check_free(request.listen, recorded.ports())?;
    Ok(recorded)
}

impl Recorded {
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        (self.api_port..).take(self.servers as usize)
    }
}

/// What was asked for, held against what the directory's servers were built on: they know each other by it.
fn settle(request: &Request, recorded: Option<Recorded>) -> Result<Recorded> {
    let host = if request.listen.is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        request.listen
    };
    let Some(recorded) = recorded else {
        return Ok(Recorded {
            servers: request.servers.unwrap_or(SERVERS),
            first_members: None,
            api_port: request.api_port.unwrap_or(API_PORT),
            host: host.to_string(),
        });
    };
    let mut recorded = recorded;
    let other_directory = "or start another cluster with another --data-dir";
    if let Some(servers) = request
        .servers
        .filter(|servers| *servers < recorded.servers)
    {
        bail!(
            "the directory holds a cluster of {} servers, not {servers}, and 'reckon up' lets it grow but not shrink: leave --servers \
             out, {other_directory}",
            recorded.servers
        );
    }
    if let Some(servers) = request
        .servers
        .filter(|servers| *servers > recorded.servers)
    {
        recorded.first_members = Some(recorded.first_members());
        recorded.servers = servers;
    }
    if let Some(port) = request.api_port.filter(|port| *port != recorded.api_port) {
        bail!(
            "the directory's cluster has its ports from {} on, not {port}: leave --api-port out, {other_directory}",
            recorded.api_port
        );
    }
    if !request.listen.is_unspecified() && host.to_string() != recorded.host {
        bail!(
            "the directory's servers know each other at {}, not at {host}: use --listen {0} or --listen 0.0.0.0, {other_directory}",
            recorded.host
        );
    }
    Ok(recorded)
}

/// What the machine must have for containers.
fn agents() -> Result<()> {
    agent::preflight().context(
        "agents run containers, and this machine cannot; or go without them with --agents 0",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::Tunables;

    #[test]
    fn what_a_second_start_may_ask_for() {
        let check = |servers: Option<u32>,
                     port: Option<u16>,
                     listen: &str,
                     expected: Result<(u32, u16, &str), &str>| {
            let request = Request {
                data_dir: "x".into(),
                servers,
                agents: 0,
                simulated_nodes: 0,
                api_port: port,
                listen: listen.parse().unwrap(),
                no_restart: false,
                tunables: Tunables(Vec::new()),
            };
            let recorded = Recorded {
                servers: 5,
                first_members: None,
                api_port: 7000,
                host: "127.0.0.1".into(),
            };
            let found = settle(&request, Some(recorded)).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok((servers, api_port, host))) => assert_eq!(
                    found,
                    Recorded {
                        servers,
                        first_members: (servers != 5).then_some(5),
                        api_port,
                        host: host.into()
                    }
                ),
                (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(None, None, "127.0.0.1", Ok((5, 7000, "127.0.0.1")));
        check(Some(5), Some(7000), "0.0.0.0", Ok((5, 7000, "127.0.0.1")));
        check(Some(7), None, "127.0.0.1", Ok((7, 7000, "127.0.0.1")));
        check(
            Some(3),
            None,
            "127.0.0.1",
            Err("a cluster of 5 servers, not 3"),
        );
        check(
            None,
            Some(6443),
            "127.0.0.1",
            Err("ports from 7000 on, not 6443"),
        );
        check(None, None, "10.0.0.1", Err("know each other at 127.0.0.1"));
    }
}
