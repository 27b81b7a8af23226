//! The administrator's kubeconfig: a context for each server, and `reckon`, which is the first's.

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::cli::{Cluster, KubeContext, Kubeconfig, NamedCluster, NamedContext, NamedUser, User};

use super::pki::Pki;

const USER: &str = "admin";

/// `servers`: name and `https://host:port` of each.
pub fn administrators(pki: &Pki, servers: &[(String, String)]) -> Result<Kubeconfig> {
    let pair = pki.administrator()?;
    let user = User {
        client_certificate_data: Some(STANDARD.encode(&pair.certificate_pem)),
        client_key_data: Some(STANDARD.encode(&pair.key_pem)),
        ..User::default()
    };
    let first = servers
        .iter()
        .take(1)
        .map(|(_, url)| ("reckon".to_string(), url.clone()));
    let entries: Vec<(String, String)> = first.chain(servers.iter().cloned()).collect();
    let cluster = |(name, server): &(String, String)| NamedCluster {
        name: name.clone(),
        cluster: Cluster {
            server: server.clone(),
            certificate_authority_data: Some(STANDARD.encode(pki.authority_pem())),
            ..Cluster::default()
        },
    };
    let context = |(name, _): &(String, String)| NamedContext {
        name: name.clone(),
        context: KubeContext {
            cluster: name.clone(),
            user: USER.to_string(),
            namespace: None,
        },
    };
    Ok(Kubeconfig::new(
        entries.iter().map(cluster).collect(),
        vec![NamedUser {
            name: USER.to_string(),
            user,
        }],
        entries.iter().map(context).collect(),
    ))
}
