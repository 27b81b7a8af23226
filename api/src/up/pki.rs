//! The cluster's certificates: one authority that signs servers, agents and the administrator.
//!
//! They are made once and read again by every later `up`; one that nears its end, or whose names no longer fit, is signed anew with
//! its own key. The authority's key never changes, for a kubeconfig that someone copied must go on working.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, Datelike, Days, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use server::authority::{SERVED_NAMES, SERVERS_GROUP};
use x509_parser::extensions::GeneralName;

use super::directory::Directory;

const AUTHORITY_DAYS: u64 = 3_650;
const CERTIFICATE_DAYS: u64 = 365;
/// A certificate with less than this left is signed anew.
const RENEW_DAYS: u64 = 30;

pub struct Pki<'a> {
    directory: &'a Directory,
    now: DateTime<Utc>,
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
}

/// Where a certificate and its key lie, and what they are.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl<'a> Pki<'a> {
    /// Of the directory; made if there is none.
    pub fn open(directory: &'a Directory, now: DateTime<Utc>) -> Result<Self> {
        directory.folder("pki")?;
        let key = key(directory, "ca")?;
        let known = read(directory, "ca.crt").filter(|pem| certificate_fits(pem, &key, None, now));
        let authority_pem = match known {
            Some(pem) => pem,
            None => {
                let mut params = params("reckon-ca", None, now, AUTHORITY_DAYS)?;
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![
                    KeyUsagePurpose::KeyCertSign,
                    KeyUsagePurpose::CrlSign,
                    KeyUsagePurpose::DigitalSignature,
                ];
                let pem = params
                    .self_signed(&key)
                    .context("cannot sign the certificate authority")?
                    .pem();
                directory.write("pki/ca.crt", pem.as_bytes(), 0o644)?;
                pem
            }
        };
        let authority =
            Issuer::from_ca_cert_pem(&authority_pem, key).context("pki/ca.crt cannot be used")?;
        Ok(Self {
            directory,
            now,
            authority,
            authority_pem,
        })
    }

    pub fn authority(&self) -> PathBuf {
        self.directory.path("pki/ca.crt")
    }

    /// With it servers sign the certificates of servers that join.
    pub fn authority_key(&self) -> PathBuf {
        self.directory.path("pki/ca.key")
    }

    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// For serving, and for being a client of the other servers.
    pub fn server(&self, name: &str, addresses: &[IpAddr]) -> Result<Pair> {
        let mut names = vec![name.to_string()];
        names.extend(SERVED_NAMES.map(str::to_string));
        names.extend(addresses.iter().map(IpAddr::to_string));
        names.sort();
        names.dedup();
        self.pair(name, name, SERVERS_GROUP, Some(names))
    }

    pub fn agent(&self, node: &str) -> Result<Pair> {
        self.pair(node, &format!("system:node:{node}"), "system:nodes", None)
    }

    pub fn simulated_nodes(&self) -> Result<Pair> {
        self.pair(
            "simulated-nodes",
            "system:simulated-nodes",
            "system:simulated-nodes",
            None,
        )
    }

    pub fn administrator(&self) -> Result<Pair> {
        self.pair("admin", "admin", "system:masters", None)
    }

    /// `names`: those it serves under; without, it is a client's alone.
    fn pair(
        &self,
        file: &str,
        common_name: &str,
        organization: &str,
        names: Option<Vec<String>>,
    ) -> Result<Pair> {
        let key = key(self.directory, file)?;
        let certificate = format!("pki/{file}.crt");
        let known = read(self.directory, &format!("{file}.crt"))
            .filter(|pem| certificate_fits(pem, &key, names.as_deref(), self.now));
        let certificate_pem = match known {
            Some(pem) => pem,
            None => {
                let mut params =
                    params(common_name, Some(organization), self.now, CERTIFICATE_DAYS)?;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.use_authority_key_identifier_extension = true;
                if let Some(names) = names {
                    params
                        .extended_key_usages
                        .push(ExtendedKeyUsagePurpose::ServerAuth);
                    params.subject_alt_names = CertificateParams::new(names)
                        .context("a server's name cannot be put into a certificate")?
                        .subject_alt_names;
                }
                let pem = params
                    .signed_by(&key, &self.authority)
                    .with_context(|| format!("cannot sign {certificate}"))?
                    .pem();
                self.directory.write(&certificate, pem.as_bytes(), 0o644)?;
                pem
            }
        };
        let key_file = self.directory.path(&format!("pki/{file}.key"));
        Ok(Pair {
            certificate: self.directory.path(&certificate),
            key: key_file,
            certificate_pem,
            key_pem: key.serialize_pem(),
        })
    }
}

/// The key in `pki/NAME.key`, made if there is none. Nobody but the owner may read it.
fn key(directory: &Directory, name: &str) -> Result<KeyPair> {
    let file = format!("pki/{name}.key");
    if let Some(pem) = read(directory, &format!("{name}.key")) {
        let path = directory.path(&file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot guard {file}"))?;
        return KeyPair::from_pem(&pem).with_context(|| format!("{} is no key", path.display()));
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    directory.write(&file, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn read(directory: &Directory, name: &str) -> Option<String> {
    std::fs::read_to_string(directory.path("pki").join(name)).ok()
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    now: DateTime<Utc>,
    days: u64,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    // From yesterday, for the clocks of several machines never agree.
    let date = |days_from_now: Option<DateTime<Utc>>| {
        let date = days_from_now.context("the clock is past what certificates can say")?;
        anyhow::Ok(rcgen::date_time_ymd(
            date.year(),
            date.month() as u8,
            date.day() as u8,
        ))
    };
    params.not_before = date(now.checked_sub_days(Days::new(1)))?;
    params.not_after = date(now.checked_add_days(Days::new(days)))?;
    Ok(params)
}

/// It is of this key, stands long enough, and has these names.
fn certificate_fits(
    pem: &str,
    key: &KeyPair,
    names: Option<&[String]>,
    now: DateTime<Utc>,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return false;
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return false;
    };
    let validity = certificate.validity();
    let left_s = validity.not_after.timestamp() - now.timestamp();
    if validity.not_before.timestamp() > now.timestamp() || left_s < (RENEW_DAYS * 86_400) as i64 {
        return false;
    }
    if certificate.public_key().subject_public_key.data != key.public_key_raw() {
        return false;
    }
    let Some(names) = names else { return true };
    let mut present: Vec<String> = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(name)
            .collect(),
        _ => Vec::new(),
    };
    present.sort();
    present == names
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pems(directory: &Directory, now: DateTime<Utc>, addresses: &[&str]) -> [String; 4] {
        let pki = Pki::open(directory, now).unwrap();
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let server = pki.server("server-1", &addresses).unwrap();
        let admin = pki.administrator().unwrap();
        [
            pki.authority_pem().to_string(),
            server.certificate_pem,
            server.key_pem,
            admin.certificate_pem,
        ]
    }

    #[test]
    fn what_is_kept_and_what_is_signed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path(), None).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let first = pems(&directory, now, &["127.0.0.1"]);
        // (days later, addresses; unchanged: authority, server's certificate, its key, the administrator's)
        let mut last = first;
        let mut check = |days: u64, addresses: &[&str], unchanged: [bool; 4]| {
            let next = pems(&directory, now + Days::new(days), addresses);
            let same: Vec<bool> = last
                .iter()
                .zip(&next)
                .map(|(last, next)| last == next)
                .collect();
            assert_eq!(same, unchanged, "{days} days later, {addresses:?}");
            last = next;
        };
        check(0, &["127.0.0.1"], [true, true, true, true]);
        check(300, &["127.0.0.1"], [true, true, true, true]);
        check(300, &["10.1.2.3"], [true, false, true, true]);
        check(340, &["10.1.2.3"], [true, true, true, false]);
        check(3_630, &["10.1.2.3"], [false, false, true, false]);
    }

    #[test]
    fn keys_are_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path(), None).unwrap();
        let pki = Pki::open(&directory, std::time::SystemTime::now().into()).unwrap();
        for path in [
            pki.administrator().unwrap().key,
            pki.agent("agent-1").unwrap().key,
            directory.path("pki/ca.key"),
        ] {
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
        }
    }
}
