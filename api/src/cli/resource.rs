//! Which resource a word means, asked of the cluster's discovery: `deploy/web`, `deployments.apps/web`, `Pod/x`.
//!
//! As kubectl resolves them: plural, singular, kind or short name, a group (or version and group) behind a dot; the core group first.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Client;

/// An object that a command names.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub plural: String,
    /// Empty for what has none.
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// `word` is KIND/NAME. `namespace` counts for what is namespaced.
    pub async fn resolve(client: &Client, word: &str, namespace: Option<&str>) -> Result<Self> {
        let Some((kind, name)) = word
            .split_once('/')
            .filter(|(kind, name)| !kind.is_empty() && !name.is_empty())
        else {
            bail!("'{word}' names no object: give KIND/NAME, as deployment/web");
        };
        let (kind, qualifier) = kind.split_once('.').unwrap_or((kind, ""));
        for (group, version, path) in groups(client).await? {
            if !qualifies(qualifier, &group, &version) {
                continue;
            }
            let list = client.get(&path).await?;
            let resources = list["resources"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            if let Some(found) = resources.iter().find(|resource| is_called(resource, kind)) {
                let namespaced = found["namespaced"] == true;
                let namespace = if namespaced {
                    namespace.unwrap_or(&client.namespace)
                } else {
                    ""
                };
                return Ok(Self {
                    group,
                    version,
                    plural: text(found, "name").to_string(),
                    namespace: namespace.to_string(),
                    name: name.to_string(),
                });
            }
        }
        bail!(
            "the cluster has no kind '{}'; 'kubectl api-resources' lists them",
            word.split('/').next().unwrap_or(word)
        )
    }

    /// As the log's keys name it: `apps/deployments`, `pods`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}/{}", self.group, self.plural)
        }
    }

    /// Its path in the Kubernetes API.
    pub fn path(&self) -> String {
        let base = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match self.namespace.as_str() {
            "" => format!("{base}/{}/{}", self.plural, self.name),
            namespace => format!(
                "{base}/namespaces/{namespace}/{}/{}",
                self.plural, self.name
            ),
        }
    }

    /// As the bodies of Reckon's own requests name it.
    pub fn name_in(&self, body: &mut Value) {
        body["resource"] = self.resource().into();
        body["name"] = self.name.as_str().into();
        if !self.namespace.is_empty() {
            body["namespace"] = self.namespace.as_str().into();
        }
    }

    /// As Reckon's own paths take it.
    pub fn query(&self) -> String {
        format!(
            "resource={}&namespace={}&name={}",
            escape(&self.resource()),
            escape(&self.namespace),
            escape(&self.name)
        )
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, "/{}", self.name)?;
        if self.namespace.is_empty() {
            Ok(())
        } else {
            write!(f, " in namespace {}", self.namespace)
        }
    }
}

/// For a query or a path's segment: all but unreserved characters (RFC 3986, 2.3).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte as char)
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// (group, version, path of its resource list); the core group, then the others in the order in which the server names them.
async fn groups(client: &Client) -> Result<Vec<(String, String, String)>> {
    let mut found = vec![(String::new(), "v1".to_string(), "/api/v1".to_string())];
    let list = client
        .get("/apis")
        .await
        .context("cannot read what kinds the cluster has")?;
    for group in list["groups"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let group_version = text(&group["preferredVersion"], "groupVersion");
        found.push((
            text(group, "name").to_string(),
            text(&group["preferredVersion"], "version").to_string(),
            format!("/apis/{group_version}"),
        ));
    }
    Ok(found)
}

/// `apps`, `v1.apps`, for the core group `v1`, or nothing at all.
fn qualifies(qualifier: &str, group: &str, version: &str) -> bool {
    qualifier.is_empty()
        || group == qualifier
        || format!("{version}.{group}") == qualifier
        || (qualifier == version && group.is_empty())
}

fn is_called(resource: &Value, word: &str) -> bool {
    let name = text(resource, "name");
    if name.contains('/') || word.is_empty() {
        return false;
    }
    let short = resource["shortNames"]
        .as_array()
        .is_some_and(|names| names.iter().any(|name| name == word));
    let word = word.to_lowercase();
    short
        || name == word
        || text(resource, "singularName") == word
        || text(resource, "kind").to_lowercase() == word
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_that_call_a_resource() {
        let deployments = json!({ "name": "deployments", "singularName": "deployment", "kind": "Deployment", "shortNames": ["deploy"] });
        let scale = json!({ "name": "deployments/scale", "singularName": "", "kind": "Scale" });
        let check = |resource: &Value, word: &str, expected: bool| {
            assert_eq!(is_called(resource, word), expected, "{word}")
        };
        check(&deployments, "deploy", true);
        check(&deployments, "deployment", true);
        check(&deployments, "deployments", true);
        check(&deployments, "Deployment", true);
        check(&deployments, "deplo", false);
        check(&deployments, "", false);
        check(&scale, "scale", false);
    }

    #[test]
    fn qualifiers() {
        let check = |qualifier: &str, group: &str, version: &str, expected: bool| {
            assert_eq!(
                qualifies(qualifier, group, version),
                expected,
                "{qualifier} {group} {version}"
            );
        };
        check("", "apps", "v1", true);
        check("apps", "apps", "v1", true);
        check("v1.apps", "apps", "v1", true);
        check("v1", "", "v1", true);
        check("v1", "apps", "v1", false);
        check("batch", "apps", "v1", false);
    }

    #[test]
    fn paths() {
        let check = |group: &str, namespace: &str, path: &str, resource: &str| {
            let target = Target {
                group: group.into(),
                version: "v1".into(),
                plural: "things".into(),
                namespace: namespace.into(),
                name: "x".into(),
            };
            assert_eq!(
                (target.path().as_str(), target.resource().as_str()),
                (path, resource)
            );
        };
        check("", "", "/api/v1/things/x", "things");
        check("", "n", "/api/v1/namespaces/n/things/x", "things");
        check(
            "apps",
            "n",
            "/apis/apps/v1/namespaces/n/things/x",
            "apps/things",
        );
        assert_eq!(escape("apps/deployments+1"), "apps%2Fdeployments%2B1");
    }
}
