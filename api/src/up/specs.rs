//! The command lines of the members, and what they need beside them: certificates and directories.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::directory::{Directory, Recorded};
use super::member::{Role, Spec};
use super::pki::{Pair, Pki};
use super::{Request, SIMULATED_PREFIX};

pub fn server_name(number: u32) -> String {
    format!("server-{number}")
}

pub fn agent_name(number: u32) -> String {
    format!("agent-{number}")
}

/// `host:port` under which the others know a server.
pub fn address(number: u32, recorded: &Recorded) -> String {
    let host = match recorded.host.contains(':') {
        true => format!("[{}]", recorded.host),
        false => recorded.host.clone(),
    };
    format!("{host}:{}", port(number, recorded))
}

/// Name and URL of each server.
pub fn urls(recorded: &Recorded) -> Vec<(String, String)> {
    addresses(recorded)
        .map(|(name, address)| (name, format!("https://{address}")))
        .collect()
}

pub fn server(
    number: u32,
    request: &Request,
    recorded: &Recorded,
    directory: &Directory,
    pki: &Pki,
) -> Result<Spec> {
    let name = server_name(number);
    let pair = pki.server(&name, &reachable_at(request.listen, recorded)?)?;
    let first_members: Vec<String> = addresses(recorded)
        .take(recorded.first_members() as usize)
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    let listen = SocketAddr::new(request.listen, port(number, recorded));
    let mut arguments = Arguments::new("server");
    arguments.flag("--name", &name);
    arguments.flag("--data-dir", directory.folder(&name)?);
    arguments.flag("--listen", listen.to_string());
    if number <= recorded.first_members() {
        arguments.flag("--initial-cluster", first_members.join(","));
    } else {
        arguments.flag("--join", server_list(recorded));
    }
    arguments.pair(&pair, pki);
    arguments.flag("--ca-key", pki.authority_key());
    for (flag, value) in &request.tunables.0 {
        arguments.flag(flag, value);
    }
    Ok(Spec {
        name,
        role: Role::Server,
        arguments: arguments.0,
        stop: Signal::SIGTERM,
        removal: None,
    })
}

pub fn agent(name: &str, recorded: &Recorded, directory: &Directory, pki: &Pki) -> Result<Spec> {
    let pair = pki.agent(name)?;
    let data = directory.path(name);
    // containerd's, and so root's: not the caller's.
    std::fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the directory {}", data.display()))?;
    let mut arguments = Arguments::new("agent");
    arguments.flag("--name", name);
    arguments.flag("--data-dir", data);
    arguments.flag("--images", directory.path("images"));
    arguments.flag("--server", server_list(recorded));
    arguments.pair(&pair, pki);
    Ok(Spec {
        name: name.to_string(),
        role: Role::Agent,
        arguments: arguments.0,
        // SIGTERM would leave its pods running.
        stop: Signal::SIGUSR1,
        removal: Some("--remove"),
    })
}

/// One process for all of them.
pub fn simulated_nodes(nodes: u32, recorded: &Recorded, pki: &Pki) -> Result<Spec> {
    let pair = pki.simulated_nodes()?;
    let mut arguments = Arguments::new("agent");
    arguments.flag("--simulated", nodes.to_string());
    arguments.flag("--name", SIMULATED_PREFIX);
    arguments.flag("--server", server_list(recorded));
    arguments.pair(&pair, pki);
    let name = "simulated-nodes".to_string();
    Ok(Spec {
        name,
        role: Role::SimulatedNodes,
        arguments: arguments.0,
        stop: Signal::SIGTERM,
        removal: None,
    })
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn new(command: &str) -> Self {
        Self(vec![command.into()])
    }

    fn flag(&mut self, name: &str, value: impl AsRef<Path>) {
        self.0
            .extend([name.into(), value.as_ref().as_os_str().to_os_string()]);
    }

    fn pair(&mut self, pair: &Pair, pki: &Pki) {
        self.flag("--ca", pki.authority());
        self.flag("--cert", &pair.certificate);
        self.flag("--key", &pair.key);
    }
}

fn addresses(recorded: &Recorded) -> impl Iterator<Item = (String, String)> {
    (1..=recorded.servers).map(|number| (server_name(number), address(number, recorded)))
}

fn port(number: u32, recorded: &Recorded) -> u16 {
    // At most nine servers from a port of at most 65,000.
    recorded.api_port + (number - 1) as u16
}

fn server_list(recorded: &Recorded) -> String {
    urls(recorded)
        .into_iter()
        .map(|(_, url)| url)
        .collect::<Vec<_>>()
        .join(",")
}

/// What a server's certificate must name: where it listens, which for "anywhere" is each of the machine's addresses.
fn reachable_at(listen: IpAddr, recorded: &Recorded) -> Result<Vec<IpAddr>> {
    let mut found = vec![
        recorded
            .host
            .parse()
            .context("cluster.json has no address as its host")?,
    ];
    if !listen.is_unspecified() {
        found.push(listen);
        return Ok(found);
    }
    for interface in nix::ifaddrs::getifaddrs().context("cannot list this machine's addresses")? {
        let Some(address) = interface.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push(v4.ip().into());
        } else if let Some(v6) = address
            .as_sockaddr_in6()
            .filter(|v6| !v6.ip().is_unicast_link_local())
        {
            found.push(v6.ip().into());
        }
    }
    Ok(found)
}
