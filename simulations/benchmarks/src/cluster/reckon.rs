//! Reckon's command line: `reckon server` as `reckon up` starts it, with nothing tuned.

use super::Spot;
use crate::pki::Pki;

pub(super) fn arguments(own: &Spot, all: &[Spot], pki: &Pki) -> Vec<String> {
    let cluster: Vec<String> = all
        .iter()
        .map(|spot| format!("{}={}", spot.name, spot.client))
        .collect();
    let flags = [
        ("name", own.name.clone()),
        ("data-dir", own.directory.display().to_string()),
        ("listen", own.client.clone()),
        ("initial-cluster", cluster.join(",")),
        ("ca", pki.ca_file().display().to_string()),
        (
            "cert",
            pki.certificate_file(&own.name).display().to_string(),
        ),
        ("key", pki.key_file(&own.name).display().to_string()),
        ("follow-parent", std::process::id().to_string()),
    ];
    let flags = flags
        .into_iter()
        .map(|(flag, value)| format!("--{flag}={value}"));
    ["server".to_owned()].into_iter().chain(flags).collect()
}
