//! One authority for both systems, so that TLS costs both the same: servers' certificates for serving and for talking to each other, and
//! an administrator's.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::{Path, PathBuf};

/// The servers' group, and the administrator's, as Reckon knows them. etcd looks at neither.
const SERVERS: &str = "system:reckon:servers";
const MASTERS: &str = "system:masters";

#[derive(Clone)]
pub struct Pki {
    directory: PathBuf,
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Pki {
    /// Made afresh in a directory, for servers of these names on this machine.
    pub fn make(directory: &Path, servers: &[String]) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = named("reckon-bench-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = params
            .self_signed(&key)
            .context("cannot sign the authority")?
            .pem();
        let issuer = Issuer::from_ca_cert_pem(&authority, key).context("the authority is none")?;
        let mut pki = Self {
            directory: directory.to_path_buf(),
            authority,
            certificate: String::new(),
            key: String::new(),
        };
        pki.write("ca.crt", &pki.authority)?;
        for name in servers {
            pki.pair(&issuer, name, SERVERS, true)?;
        }
        (pki.certificate, pki.key) = pki.pair(&issuer, "admin", MASTERS, false)?;
        Ok(pki)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    pub fn certificate_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crt"))
    }

    pub fn key_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    fn pair(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        name: &str,
        group: &str,
        serves: bool,
    ) -> Result<(String, String)> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = named(name, Some(group));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if serves {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
            params.subject_alt_names = CertificateParams::new(names)
                .context("a server's name cannot be put into a certificate")?
                .subject_alt_names;
        }
        let certificate = params
            .signed_by(&key, issuer)
            .with_context(|| format!("cannot sign {name}'s certificate"))?
            .pem();
        self.write(&format!("{name}.crt"), &certificate)?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.directory.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn named(common_name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params
}
