//! The pods' network on this node: a bridge of our own with host-local addresses and port mapping, by the standard CNI plugins.
//!
//! Bridge, subnet and cgroup parent derive from the cluster and the agent's name, so that several clusters and agents share a machine
//! and a restarted agent finds its own. It touches no interface, address or rule that is not its own.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

/// Pods' subnets are /24 in 10.128.0.0/9: clear of 10.96.0.0/12, where Services are.
const SUBNETS: u32 = 1 << 15;

/// Names in the kernel that are this agent's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    digest: [u8; 32],
}

impl Names {
    pub fn derive(cluster: &str, agent: &str) -> Self {
        Names {
            digest: Sha256::digest(format!("{cluster}\0{agent}")).into(),
        }
    }

    /// Eight hexadecimal digits.
    pub fn id(&self) -> String {
        self.digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// At most 15 characters, as the kernel has it.
    pub fn bridge(&self) -> String {
        format!("reckon{}", self.id())
    }

    /// Every pod's cgroups are below it.
    pub fn cgroup_parent(&self) -> String {
        format!("/reckon-{}", self.id())
    }

    /// The first free subnet from the derived one on.
    fn subnet(&self, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let first = u32::from_le_bytes([
            self.digest[4],
            self.digest[5],
            self.digest[6],
            self.digest[7],
        ]);
        let base = u32::from(Ipv4Addr::new(10, 128, 0, 0));
        (0..SUBNETS)
            .map(|step| Ipv4Addr::from(base + ((first.wrapping_add(step) % SUBNETS) << 8)))
            .find(|subnet| !taken(*subnet))
    }
}

/// The network as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub bridge: String,
    /// `10.200.3.0/24`.
    pub subnet: String,
    pub config_dir: PathBuf,
}

/// Writes the CNI configuration below `dir`, or takes the one that is there: pods of a former run hold addresses in its subnet.
pub fn configure(names: &Names, dir: &Path) -> io::Result<Network> {
    let config_dir = dir.join("conf");
    let (file, chosen) = (config_dir.join("10-reckon.conflist"), dir.join("subnet"));
    fs::create_dir_all(&config_dir)?;
    let subnet = match fs::read_to_string(&chosen) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => {
            let routes = routes(&fs::read_to_string("/proc/net/route").unwrap_or_default());
            let taken = |subnet: Ipv4Addr| {
                routes.iter().any(|(net, mask)| {
                    u32::from(subnet) & mask == net & mask || net & 0xffff_ff00 == u32::from(subnet)
                })
            };
            let subnet = names
                .subnet(taken)
                .ok_or_else(|| io::Error::other("no free subnet in 10.128.0.0/9"))?;
            let subnet = format!("{subnet}/24");
            fs::write(&chosen, &subnet)?;
            subnet
        }
    };
    let list = json!({
        "cniVersion": "0.4.0",
        "name": format!("reckon-{}", names.id()),
        "plugins": [
            {
                "type": "bridge",
                "bridge": names.bridge(),
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": dir.join("addresses"),
                    "ranges": [[{"subnet": subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let text = serde_json::to_string_pretty(&list).map_err(io::Error::other)?;
    if fs::read_to_string(&file).is_ok_and(|held| held == text) {
        return Ok(Network {
            bridge: names.bridge(),
            subnet,
            config_dir,
        });
    }
    // containerd watches the directory: it must never see half a file.
    let fresh = dir.join("conflist.new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, file)?;
    Ok(Network {
        bridge: names.bridge(),
        subnet,
        config_dir,
    })
}

/// (network, mask) of each route but the default one. /proc/net/route: hexadecimal, in the host's byte order.
fn routes(text: &str) -> Vec<(u32, u32)> {
    let read = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((read(fields.get(1)?)?, read(fields.get(7)?)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect()
}

/// Removes the bridge, its addresses' books and the rules that are left. The sandboxes must be gone.
pub fn remove(network: &Network, names: &Names, dir: &Path) {
    let bridge = Path::new("/sys/class/net").join(&network.bridge);
    if bridge.exists() {
        run("ip", &["link", "delete", &network.bridge, "type", "bridge"]);
    }
    remove_rules(names);
    remove_port_chains();
    let _ = fs::remove_dir_all(dir.join("addresses"));
    let _ = fs::remove_file(dir.join("subnet"));
}

/// The bridge plugin takes a pod's rules away with the pod. Those of pods whose removal it did not see carry our network's name
/// in their comment; each is a rule and a chain of its own.
fn remove_rules(names: &Names) {
    let Some(rules) = output("iptables", &["-w", "5", "-t", "nat", "-S"]) else {
        return;
    };
    let ours = format!("name: \"reckon-{}\"", names.id());
    let escaped = ours.replace('"', "\\\"");
    for rule in rules
        .lines()
        .filter(|line| line.contains(&ours) || line.contains(&escaped))
    {
        let Some(spec) = rule.strip_prefix("-A ") else {
            continue;
        };
        let mut arguments = vec![
            "-w".to_owned(),
            "5".to_owned(),
            "-t".to_owned(),
            "nat".to_owned(),
            "-D".to_owned(),
        ];
        arguments.extend(split_quoted(spec));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run("iptables", &arguments);
        let chain = spec
            .split_whitespace()
            .skip_while(|word| *word != "-j")
            .nth(1);
        if let Some(chain) = chain.filter(|chain| chain.starts_with("CNI-")) {
            run("iptables", &["-w", "5", "-t", "nat", "-F", chain]);
            run("iptables", &["-w", "5", "-t", "nat", "-X", chain]);
        }
    }
}

/// The portmap plugin's chains are shared by all on the machine and left by it for good; once no port is mapped they are of no use. Whoever
/// maps a port makes them anew.
fn remove_port_chains() {
    for program in ["iptables", "ip6tables"] {
        let nat =
            |arguments: &[&str]| run(program, &[&["-w", "5", "-t", "nat"], arguments].concat());
        let Some(rules) = output(program, &["-w", "5", "-t", "nat", "-S"]) else {
            continue;
        };
        let rules: Vec<&str> = rules.lines().collect();
        let mapped = |rule: &&str| {
            rule.starts_with("-A CNI-HOSTPORT-DNAT ") || rule.starts_with("-N CNI-DN-")
        };
        if !rules.contains(&"-N CNI-HOSTPORT-DNAT") || rules.iter().any(mapped) {
            continue;
        }
        let chains = [
            "CNI-HOSTPORT-DNAT",
            "CNI-HOSTPORT-MASQ",
            "CNI-HOSTPORT-SETMARK",
        ];
        let jumps = |rule: &&&str| {
            chains
                .iter()
                .any(|chain| rule.ends_with(&format!("-j {chain}")))
        };
        for rule in rules
            .iter()
            .filter(jumps)
            .filter_map(|rule| rule.strip_prefix("-A "))
        {
            let words = split_quoted(rule);
            let words: Vec<&str> = std::iter::once("-D")
                .chain(words.iter().map(String::as_str))
                .collect();
            nat(&words);
        }
        for chain in chains {
            nat(&["-F", chain]);
            nat(&["-X", chain]);
        }
    }
}

/// Words of `iptables -S`, where a comment is in quotes.
fn split_quoted(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn run(program: &str, arguments: &[&str]) {
    if let Err(error) = Command::new(program).args(arguments).output() {
        tracing::warn!(program, %error, "could not run");
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_short() {
        let (one, other) = (
            Names::derive("c1", "agent-1"),
            Names::derive("c1", "agent-2"),
        );
        assert_eq!(one, Names::derive("c1", "agent-1"));
        assert_ne!(one.bridge(), other.bridge());
        assert!(one.bridge().len() <= 15, "{}", one.bridge());
    }

    #[test]
    fn a_taken_subnet_is_stepped_over() {
        let names = Names::derive("c", "a");
        let first = names.subnet(|_| false).unwrap();
        let next = names.subnet(|subnet| subnet == first).unwrap();
        assert_eq!(u32::from(next), u32::from(first) + 256);
        assert!(
            first.octets()[0] == 10 && first.octets()[1] >= 128,
            "{first}"
        );
        assert_eq!(names.subnet(|_| true), None);
    }

    #[test]
    fn the_configuration_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::derive("c", "a");
        let network = configure(&names, dir.path()).unwrap();
        fs::write(dir.path().join("subnet"), "10.200.1.0/24").unwrap();
        let again = configure(&names, dir.path()).unwrap();
        assert_eq!(
            (again.subnet.as_str(), &again.bridge),
            ("10.200.1.0/24", &network.bridge)
        );
        let text = fs::read_to_string(network.config_dir.join("10-reckon.conflist")).unwrap();
        assert!(text.contains("10.200.1.0/24"), "{text}");
    }

    #[test]
    fn routes_and_rules_are_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\n\
                     eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";
        assert_eq!(routes(table), [(0xac11_0000, 0xffff_0000)]);
        assert_eq!(
            split_quoted(
                r#"POSTROUTING -s 10.1.0.2/32 -m comment --comment "name: \"x\" id: \"y\"" -j CNI-1"#
            ),
            [
                "POSTROUTING",
                "-s",
                "10.1.0.2/32",
                "-m",
                "comment",
                "--comment",
                "name: \"x\" id: \"y\"",
                "-j",
                "CNI-1"
            ]
        );
    }
}
