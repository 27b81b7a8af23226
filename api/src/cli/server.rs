//! `reckon server`: one server of a cluster. `reckon up` starts its servers by these same flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use server::Config;
use server::config::{DiskReserve, HistoryRetention, Joined, Member, Retain, Snapshots};
use server::core::QueueLimits;

use super::join::{self, Asking, Files, How, Place};
use super::output::Format;
use super::{duration, offline, parent};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon server --name server-1 --data-dir /var/lib/reckon --listen 0.0.0.0:6443 --advertise 10.0.0.1:6443 \\
      --initial-cluster server-1=10.0.0.1:6443,server-2=10.0.0.2:6443,server-3=10.0.0.3:6443 \\
      --ca ca.crt --cert server-1.crt --key server-1.key --ca-key ca.key

  # One more, as 'reckon member add server-4 10.0.0.4:6443' prints it
  reckon server --data-dir /var/lib/reckon --listen 0.0.0.0:6443 --join https://10.0.0.1:6443 --token TOKEN

  # A majority is lost for good: look at what each disk that is left has, go on from the one that has most
  reckon server --inspect --data-dir /var/lib/reckon
  reckon server --recover-from-disk --data-dir /var/lib/reckon

The certificate is for serving and for talking to the other servers: CN is the server's name, O is system:reckon:servers.
SIGTERM hands leadership over and stops.")]
pub struct Args {
    /// This server's name among the members [default: the one it joined under]
    #[arg(long, required_unless_present_any = ["join", "inspect", "recover_from_disk"])]
    name: Option<String>,
    /// Where the log and the state are kept
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where to listen: for kubectl, agents and the other servers alike
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    listen: SocketAddr,
    /// Under which address the others reach this server [default: its own in --initial-cluster, or the one it was added with]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// All members of a new cluster, this one included; looked at only when the directory is empty
    #[arg(long, value_name = "NAME=HOST:PORT,…", value_delimiter = ',', value_parser = member,
        required_unless_present_any = ["join", "inspect", "recover_from_disk"])]
    initial_cluster: Vec<(String, String)>,
    /// Join a running cluster that has this server invited ('reckon member add'): URLs of its servers; looked at only when the
    /// directory is empty
    #[arg(
        long,
        value_name = "https://HOST:PORT,…",
        value_delimiter = ',',
        conflicts_with = "initial_cluster"
    )]
    join: Vec<String>,
    /// The token that 'reckon member add' printed: with it the cluster makes this server's certificate
    #[arg(long, requires = "join", conflicts_with_all = ["ca", "cert", "key"])]
    token: Option<String>,
    /// The cluster's certificate authority, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    ca: Option<PathBuf>,
    /// This server's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<PathBuf>,
    /// The authority's key, PEM: with it this server signs the certificates of servers that join
    #[arg(long, value_name = "FILE")]
    ca_key: Option<PathBuf>,
    /// Print what a server's directory holds: last term, index and revision. The server must not run
    #[arg(long, conflicts_with_all = ["recover_from_disk", "join", "initial_cluster"])]
    inspect: bool,
    /// When a majority is lost for good: make this directory's server the only member of a new cluster that goes on from what its
    /// disk has, and say where it stands. What only the lost ones had is gone. The server must not run
    #[arg(long, conflicts_with_all = ["join", "initial_cluster"])]
    recover_from_disk: bool,
    /// Print for programs, with --inspect or --recover-from-disk
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    tunables: TunableArgs,
    /// End when this process, which started us, does
    #[arg(long, value_name = "PID", hide = true)]
    follow_parent: Option<i32>,
}

/// What `reckon up` hands on to its servers.
#[derive(clap::Args)]
pub struct TunableArgs {
    /// How long a node may be out of touch before it is NotReady
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = duration::seconds)]
    pub node_grace: u64,
    /// How long pods that say nothing else tolerate a node that is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(i64).range(0..))]
    pub default_not_ready_toleration_seconds: i64,
    /// For how long every object's past can be read: a duration (90d), a number of revisions, or forever
    #[arg(long, value_name = "DURATION|REVISIONS", default_value = "forever", value_parser = retain)]
    pub history_retention: Retain,
    /// The same for Events and Leases, which are many and seldom read later
    #[arg(long, value_name = "DURATION|REVISIONS", default_value = "forever", value_parser = retain)]
    pub ephemeral_history_retention: Retain,
    /// Write history away as it is made, to go back to any moment of it: file:///DIR, s3://BUCKET/PREFIX, gs://…, az://…; credentials
    /// come from the environment (AWS_ACCESS_KEY_ID, …)
    #[arg(long, value_name = "URL")]
    pub archive: Option<String>,
    /// Log that may gather before a snapshot of the state is taken, after which the log can be shortened
    #[arg(long, value_name = "BYTES", default_value_t = Snapshots::default().log_bytes)]
    pub snapshot_log_bytes: u64,
    /// Log entries to keep behind a snapshot: a server that lags by more is rebuilt from the snapshot
    #[arg(long, value_name = "ENTRIES", default_value_t = Snapshots::default().keep_entries)]
    pub snapshot_keep_entries: u64,
    /// And of them no more bytes than this
    #[arg(long, value_name = "BYTES", default_value_t = Snapshots::default().keep_bytes)]
    pub snapshot_keep_bytes: u64,
    /// What is to stay free of the disk: below it users' writes are refused, with 507, and everything else goes on
    #[arg(long, value_name = "PERCENT|BYTES", default_value = "5%", value_parser = reserve)]
    pub disk_reserve: DiskReserve,
    /// Be as old a program as knows no level of the log above this
    #[arg(long, value_name = "LEVEL", hide = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(Config::MOST_LEVEL)))]
    pub max_level: Option<u32>,
}

impl TunableArgs {
    /// As flags again.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = vec![
            ("--node-grace", self.node_grace.to_string()),
            (
                "--default-not-ready-toleration-seconds",
                self.default_not_ready_toleration_seconds.to_string(),
            ),
            ("--history-retention", shown(self.history_retention)),
            (
                "--ephemeral-history-retention",
                shown(self.ephemeral_history_retention),
            ),
            ("--snapshot-log-bytes", self.snapshot_log_bytes.to_string()),
            (
                "--snapshot-keep-entries",
                self.snapshot_keep_entries.to_string(),
            ),
            (
                "--snapshot-keep-bytes",
                self.snapshot_keep_bytes.to_string(),
            ),
            ("--disk-reserve", reserve_text(self.disk_reserve)),
        ];
        flags.extend(self.archive.clone().map(|url| ("--archive", url)));
        flags.extend(
            self.max_level
                .map(|level| ("--max-level", level.to_string())),
        );
        flags
    }
}

fn shown(retain: Retain) -> String {
    match retain {
        Retain::Forever => "forever".to_owned(),
        Retain::AgeS(age_s) => format!("{age_s}s"),
        Retain::Revisions(revisions) => revisions.to_string(),
    }
}

fn retain(text: &str) -> Result<Retain, String> {
    if text == "forever" {
        return Ok(Retain::Forever);
    }
    if let Ok(revisions) = text.parse() {
        return Ok(Retain::Revisions(revisions));
    }
    duration::seconds(text).map(Retain::AgeS).map_err(|_| {
        format!(
            "'{text}' is neither a duration (90d, 12h), nor a number of revisions, nor 'forever'"
        )
    })
}

fn reserve_text(reserve: DiskReserve) -> String {
    match reserve {
        DiskReserve::Percent(percent) => format!("{percent}%"),
        DiskReserve::Bytes(bytes) => bytes.to_string(),
    }
}

fn reserve(text: &str) -> Result<DiskReserve, String> {
    let wrong = || {
        format!(
            "'{text}' is neither a part of the disk (5%) nor a number of bytes (1073741824, 1GiB, 500MiB)"
        )
    };
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().ok().filter(|percent| *percent <= 100);
        return percent.map(DiskReserve::Percent).ok_or_else(wrong);
    }
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    Ok(DiskReserve::Bytes(bytes))
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.inspect {
        return offline::inspect(&args.data_dir, args.output);
    }
    if args.recover_from_disk {
        return offline::recover(&args.data_dir, args.output);
    }
    if args.follow_parent.is_some_and(|pid| !parent::follow(pid)) {
        bail!("the process that started this server is gone");
    }
    // A fifth less memory, and a start need not clear what it will not use. Writes, with 1, 64 and 256 clients, are as fast. Where the
    // kernel has no such pages there is nothing to refuse.
    let _ = nix::sys::prctl::set_thp_disable(true);
    super::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .context("cannot start the async runtime")?
        .block_on(async {
            let stop = super::asked_to_stop()?;
            let config = config(args).await?;
            // Not here, on the thread that waits for it: whatever it follows would wake this one and then one of the runtime's.
            tokio::spawn(server::run(config, stop)).await??;
            Ok(ExitCode::SUCCESS)
        })
}

/// From the command line, and from the cluster that is to be joined.
async fn config(args: Args) -> Result<Config> {
    let given = match (args.ca, args.cert, args.key) {
        (Some(ca), Some(cert), Some(key)) => Some(Files { ca, cert, key }),
        _ => None,
    };
    let place = if args.initial_cluster.is_empty() {
        Some(
            place(
                &args.data_dir,
                &args.join,
                args.token.as_deref(),
                given.as_ref(),
            )
            .await?,
        )
    } else {
        None
    };
    let name = match (&args.name, &place) {
        (Some(name), Some(place)) if *name != place.name => bail!(
            "--name says {name}, and the cluster knows this server as {}",
            place.name
        ),
        (_, Some(place)) => place.name.clone(),
        (Some(name), None) => name.clone(),
        (None, None) => bail!("--name is missing"),
    };
    let own = args
        .initial_cluster
        .iter()
        .find(|(member, _)| *member == name)
        .map(|(_, address)| address);
    let own = match (&place, own) {
        (Some(place), _) => place.address.clone(),
        (None, Some(address)) => address.clone(),
        (None, None) => bail!("--initial-cluster does not name this server, {name}"),
    };
    let files = match given {
        Some(files) => files,
        None if place.is_some() => join::files(&args.data_dir),
        None => bail!("--ca, --cert and --key are missing"),
    };
    let members = args
        .initial_cluster
        .into_iter()
        .map(|(name, address)| Member { name, address });
    Ok(Config {
        name,
        data_dir: args.data_dir,
        listen: args.listen,
        advertise: args.advertise.unwrap_or(own),
        initial_cluster: members.collect(),
        joined: place.map(|place| Joined {
            id: place.id,
            cluster: place.cluster,
        }),
        ca: files.ca,
        cert: files.cert,
        key: files.key,
        ca_key: args.ca_key,
        node_grace_s: args.tunables.node_grace,
        default_not_ready_toleration_s: args.tunables.default_not_ready_toleration_seconds,
        service_cidr: Config::SERVICE_CIDR.to_string(),
        retention: HistoryRetention {
            all: args.tunables.history_retention,
            ephemeral: args.tunables.ephemeral_history_retention,
        },
        snapshots: Snapshots {
            log_bytes: args.tunables.snapshot_log_bytes,
            keep_entries: args.tunables.snapshot_keep_entries,
            keep_bytes: args.tunables.snapshot_keep_bytes,
        },
        archive: args.tunables.archive,
        queue: QueueLimits::default(),
        disk_reserve: args.tunables.disk_reserve,
        most_level: args.tunables.max_level.unwrap_or(Config::MOST_LEVEL),
        most_outcomes: Config::MOST_OUTCOMES,
    })
}

/// What this server is in the cluster that it joined, or joins now.
async fn place(
    data_dir: &Path,
    servers: &[String],
    token: Option<&str>,
    given: Option<&Files>,
) -> Result<Place> {
    if let Some(place) = join::known(data_dir)? {
        return Ok(place);
    }
    let how = match (token, given) {
        (Some(token), _) => How::Token(token),
        (None, Some(files)) => How::Certificate(files),
        (None, None) => bail!(
            "to join takes --token, or --ca, --cert and --key: 'reckon member add NAME HOST:PORT' says what to run"
        ),
    };
    let asking = Asking {
        data_dir,
        servers,
        how,
    };
    join::come_in(&asking)
        .await
        .context("cannot join the cluster")
}

fn member(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address))
            if !name.is_empty()
                && address
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
        {
            Ok((name.to_string(), address.to_string()))
        }
        _ => Err(format!("'{text}' is not NAME=HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions() {
        let check = |text: &str, expected: Option<Retain>| {
            assert_eq!(retain(text).ok(), expected, "{text}");
            if let Some(retain_as) = expected {
                assert_eq!(retain(&shown(retain_as)), Ok(retain_as), "{text}");
            }
        };
        check("forever", Some(Retain::Forever));
        check("90d", Some(Retain::AgeS(90 * 86_400)));
        check("30s", Some(Retain::AgeS(30)));
        check("1000000", Some(Retain::Revisions(1_000_000)));
        check("0", Some(Retain::Revisions(0)));
        check("", None);
        check("never", None);
        check("-1", None);
        check("3w", None);
    }

    #[test]
    fn reserves() {
        let check = |text: &str, expected: Option<DiskReserve>| {
            assert_eq!(reserve(text).ok(), expected, "{text}");
            if let Some(expected) = expected {
                assert_eq!(reserve(&reserve_text(expected)), Ok(expected), "{text}");
            }
        };
        check("5%", Some(DiskReserve::Percent(5)));
        check("0%", Some(DiskReserve::Percent(0)));
        check("100%", Some(DiskReserve::Percent(100)));
        check("101%", None);
        check("-1%", None);
        check("0", Some(DiskReserve::Bytes(0)));
        check("1073741824", Some(DiskReserve::Bytes(1 << 30)));
        check("2GiB", Some(DiskReserve::Bytes(2 << 30)));
        check("500MiB", Some(DiskReserve::Bytes(500 << 20)));
        check("18446744073709551615KiB", None);
        check("2GB", None);
        check("", None);
        check("some", None);
    }

    #[test]
    fn members() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            assert_eq!(
                member(text).ok(),
                expected.map(|(name, address)| (name.to_string(), address.to_string())),
                "{text}"
            );
        };
        check(
            "server-1=127.0.0.1:6443",
            Some(("server-1", "127.0.0.1:6443")),
        );
        check("a=[::1]:1", Some(("a", "[::1]:1")));
        check("a=host", None);
        check("=host:1", None);
        check("host:1", None);
        check("a=host:70000", None);
    }
}
