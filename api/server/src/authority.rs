//! The cluster's certificate authority, where a server was given its key: signs the certificates of servers that join.
//!
//! Only the public key is taken from a request. What a certificate says comes from the record that an administrator made:
//! a token is good for one server's name and address and no other's.

use eventstore::Digest;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use std::fmt;
use std::time::Duration;

/// Certificates of servers carry this organisation.
pub const SERVERS_GROUP: &str = "system:reckon:servers";
/// Under these a server is reached besides its own name and address: on its machine, and as the Service `kubernetes`.
pub const SERVED_NAMES: [&str; 8] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    "::1",
    "10.96.0.1",
];
/// As long as those of `reckon up`.
const VALID: Duration = Duration::from_secs(365 * 86_400);
/// From yesterday, for the clocks of several machines never agree.
const VALID_BEFORE: Duration = Duration::from_secs(86_400);

/// What a cluster with this authority (PEM) is called by raft, and by the tokens for joining it.
pub fn digest(ca_pem: &str) -> String {
    Digest::of(&[ca_pem.as_bytes()]).to_string()
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority")
    }
}

/// What was signed, and for which key.
pub(crate) struct Signed {
    pub certificate_pem: String,
    pub key: Digest,
}

impl Authority {
    /// An error when the key is not the certificate's.
    pub fn new(ca_pem: &str, key_pem: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| error.to_string())?;
        let public = key.public_key_raw().to_vec();
        let issuer = Issuer::from_ca_cert_pem(ca_pem, key).map_err(|error| error.to_string())?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes())
            .map_err(|error| error.to_string())?;
        let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
        if certificate.public_key().subject_public_key.data != public {
            return Err("it is not the key of the authority's certificate".to_owned());
        }
        Ok(Self { issuer })
    }

    /// A certificate for serving as `name` at `host`, and for being a client of the other servers. `now_s`: Unix time.
    pub(crate) fn sign(
        &self,
        request_pem: &str,
        name: &str,
        host: &str,
        now_s: i64,
    ) -> Result<Signed, String> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| error.to_string())?;
        let mut names = vec![name.to_owned(), host.to_owned()];
        names.extend(SERVED_NAMES.map(str::to_owned));
        names.sort();
        names.dedup();
        let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, name.to_owned());
        params
            .distinguished_name
            .push(DnType::OrganizationName, SERVERS_GROUP);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now_s.max(0) as u64);
        params.not_before = now - VALID_BEFORE;
        params.not_after = now + VALID;
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(|error| error.to_string())?;
        Ok(Signed {
            certificate_pem: certificate.pem(),
            key: Digest::of(&[request.public_key.der_bytes()]),
        })
    }
}
