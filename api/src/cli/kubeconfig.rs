//! Kubeconfigs: as `kubectl` reads them, so far as this command line needs them, and as `reckon up` writes one.
//!
//! Certificates and tokens, embedded or in files beside; no exec plugins, no proxies: those are refused by name, never passed over.
//! <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, Default)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion", default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub clusters: Vec<NamedCluster>,
    #[serde(default)]
    pub users: Vec<NamedUser>,
    #[serde(default)]
    pub contexts: Vec<NamedContext>,
    #[serde(default)]
    pub current_context: String,
    /// Where it was read: files it names are found beside it.
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Serialize, Deserialize, Clone)]
pub struct NamedCluster {
    pub name: String,
    pub cluster: Cluster,
}

#[derive(Serialize, Deserialize, Clone)]
pub struct NamedUser {
    pub name: String,
    pub user: User,
}

#[derive(Serialize, Deserialize, Clone)]
pub struct NamedContext {
    pub name: String,
    pub context: Context,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_tls_verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Default)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_provider: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize, Clone, Default)]
#[serde(default)]
pub struct Context {
    pub cluster: String,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut config: Self = serde_saphyr::from_str(&text).context("it is no kubeconfig")?;
        config.folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(config)
    }

    /// The one of that name, else the current one.
    pub fn context(&self, name: Option<&str>) -> Result<&NamedContext> {
        let name = name.unwrap_or(&self.current_context);
        let found = if name.is_empty() {
            self.contexts.first()
        } else {
            self.contexts.iter().find(|entry| entry.name == name)
        };
        found.with_context(|| {
            let names: Vec<&str> = self
                .contexts
                .iter()
                .map(|entry| entry.name.as_str())
                .collect();
            format!(
                "the kubeconfig has no context '{name}'; it has: {}",
                names.join(", ")
            )
        })
    }

    pub fn cluster(&self, name: &str) -> Result<&Cluster> {
        let found = self.clusters.iter().find(|entry| entry.name == name);
        let cluster = &found
            .with_context(|| format!("the kubeconfig has no cluster '{name}'"))?
            .cluster;
        if cluster.proxy_url.is_some() {
            bail!(
                "the kubeconfig's cluster '{name}' has a proxy-url, which reckon's own commands cannot use"
            );
        }
        Ok(cluster)
    }

    pub fn user(&self, name: &str) -> Result<&User> {
        let found = self.users.iter().find(|entry| entry.name == name);
        let user = &found
            .with_context(|| format!("the kubeconfig has no user '{name}'"))?
            .user;
        if user.exec.is_some() || user.auth_provider.is_some() {
            bail!(
                "the kubeconfig's user '{name}' gets its credentials from a plugin, which reckon's own commands cannot run"
            );
        }
        Ok(user)
    }

    /// The cluster's authority, PEM.
    pub fn authority(&self, cluster: &Cluster) -> Result<Option<Vec<u8>>> {
        self.data_or_file(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )
    }

    /// The user's certificate and key, PEM.
    pub fn client_certificate(&self, user: &User) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let certificate =
            self.data_or_file(&user.client_certificate_data, &user.client_certificate)?;
        let key = self.data_or_file(&user.client_key_data, &user.client_key)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            _ => bail!("the kubeconfig's user has only one of client certificate and client key"),
        }
    }

    pub fn token(&self, user: &User) -> Result<Option<String>> {
        match (&user.token, &user.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => Ok(Some(
                String::from_utf8(self.file(file)?)
                    .context("the token file is no text")?
                    .trim()
                    .to_string(),
            )),
            (None, None) => Ok(None),
        }
    }

    fn data_or_file(
        &self,
        data: &Option<String>,
        file: &Option<String>,
    ) -> Result<Option<Vec<u8>>> {
        match (data, file) {
            (Some(data), _) => Ok(Some(
                STANDARD
                    .decode(data.trim())
                    .context("the kubeconfig's embedded data is no base64")?,
            )),
            (None, Some(file)) => self.file(file).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        std::fs::read(&path)
            .with_context(|| format!("cannot read {}, which the kubeconfig names", path.display()))
    }

    /// The first context is the current one. Data is embedded: there is no folder to find files in.
    pub fn new(
        clusters: Vec<NamedCluster>,
        users: Vec<NamedUser>,
        contexts: Vec<NamedContext>,
    ) -> Self {
        let current_context = contexts
            .first()
            .map(|entry| entry.name.clone())
            .unwrap_or_default();
        Self {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters,
            users,
            contexts,
            current_context,
            folder: PathBuf::new(),
        }
    }
}
