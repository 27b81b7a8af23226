//! etcd's command line: as it comes, with TLS and clients' certificates as Reckon has them, and a quota that no row runs into.

use super::Spot;
use crate::pki::Pki;

const QUOTA_BYTES: u64 = 8 << 30;

pub(super) fn arguments(own: &Spot, all: &[Spot], pki: &Pki) -> Vec<String> {
    let cluster: Vec<String> = all
        .iter()
        .map(|spot| format!("{}=https://{}", spot.name, spot.peer))
        .collect();
    let (ca, certificate, key) = (
        pki.ca_file().display().to_string(),
        pki.certificate_file(&own.name).display().to_string(),
        pki.key_file(&own.name).display().to_string(),
    );
    let client = format!("https://{}", own.client);
    let peer = format!("https://{}", own.peer);
    [
        ("name", own.name.clone()),
        ("data-dir", own.directory.display().to_string()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("quota-backend-bytes", QUOTA_BYTES.to_string()),
        ("logger", "zap".to_owned()),
        ("log-level", "warn".to_owned()),
        ("trusted-ca-file", ca.clone()),
        ("cert-file", certificate.clone()),
        ("key-file", key.clone()),
        ("client-cert-auth", "true".to_owned()),
        ("peer-trusted-ca-file", ca),
        ("peer-cert-file", certificate),
        ("peer-key-file", key),
        ("peer-client-cert-auth", "true".to_owned()),
    ]
    .into_iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect()
}
