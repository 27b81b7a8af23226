//! What a request asks for, read from its method and path alone: Kubernetes' paths are data, and this is their one reader.
//!
//! `/at/<moment>/apis/apps/v1/namespaces/a/deployments/web/scale` is the moment, and then
//! group `apps`, version `v1`, namespace `a`, resource `deployments`, name `web`, subresource `scale`.
//! It never looks at whether any of these exist.

use super::query::{Query, decode};
use http::Method;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// What stands after `/at/`: a revision or a time.
    pub at: Option<String>,
    /// The path without the moment, decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for what is no resource the method in small letters.
    pub verb: &'static str,
    /// None: no resource (`/version`, `/apis/apps` …).
    pub resource: Option<ResourcePath>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// `""` for the core group.
    pub group: String,
    pub version: String,
    /// `""` for none.
    pub namespace: String,
    /// The plural.
    pub resource: String,
    /// `""` for none.
    pub name: String,
    /// `""` for none.
    pub subresource: String,
    /// Something follows that no resource has.
    pub too_long: bool,
}

/// Below a namespace's name these are subresources and no resources.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    pub fn read(method: &Method, raw_path: &str, query: &Query) -> Self {
        let mut parts: Vec<String> = raw_path
            .split('/')
            .skip(1)
            .map(|part| decode(part, false))
            .collect();
        let mut at = None;
        if parts.first().is_some_and(|part| part == "at") && parts.len() >= 2 {
            at = Some(parts.remove(1));
            parts.remove(0);
        }
        let path = format!("/{}", parts.join("/"));
        while parts.last().is_some_and(String::is_empty) {
            parts.pop();
        }
        let mut verb = method_verb(method);
        let resource = read_resource(&parts, &mut verb);
        if let Some(resource) = &resource {
            verb = match verb {
                "get" if resource.name.is_empty() && query.flag("watch") => "watch",
                "get" if resource.name.is_empty() => "list",
                // Deprecated, and still used by some: a watch of one object by its own path.
                "get" if query.flag("watch") && resource.subresource.is_empty() => "watch",
                "delete" if resource.name.is_empty() => "deletecollection",
                verb => verb,
            };
        }
        Self {
            at,
            path,
            verb,
            resource,
        }
    }

    /// What even a fenced server answers: how it is itself, and what its program can do.
    pub fn is_about_the_server(&self) -> bool {
        let own = ["/reckon/v1/status", "/reckon/v1/verify"];
        self.resource.is_none()
            && (!self.path.starts_with("/reckon/") || own.contains(&self.path.as_str()))
    }

    /// A request that may last longer than any deadline.
    pub fn long_running(&self) -> bool {
        self.verb == "watch"
            || self
                .resource
                .as_ref()
                .is_some_and(|resource| resource.subresource == "log")
    }
}

fn method_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        "OPTIONS" => "options",
        _ => "other",
    }
}

fn read_resource(parts: &[String], verb: &mut &'static str) -> Option<ResourcePath> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, mut rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    if let (["watch", below @ ..], "get") = (rest, *verb) {
        rest = below;
        *verb = "watch";
    }
    let mut info = ResourcePath {
        group: group.into(),
        version: version.into(),
        ..ResourcePath::default()
    };
    let rest = match rest {
        [] => return None,
        ["namespaces", namespace, below @ ..] => {
            info.namespace = (*namespace).into();
            match below {
                [first, ..] if !NAMESPACE_SUBRESOURCES.contains(first) => below,
                _ => rest,
            }
        }
        rest => rest,
    };
    let [resource, rest @ ..] = rest else {
        return None;
    };
    info.resource = (*resource).into();
    if let Some(name) = rest.first() {
        info.name = (*name).into();
    }
    if let Some(subresource) = rest.get(1) {
        info.subresource = (*subresource).into();
    }
    info.too_long = rest.len() > 2;
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// at, verb, group, version, namespace, resource, name, subresource
    type Row = (
        &'static str,
        &'static str,
        Option<&'static str>,
        &'static str,
        [&'static str; 6],
    );

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let rows: [Row; 19] = [
            (
                "GET",
                "/api/v1/pods",
                None,
                "list",
                ["", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/pods?watch=true",
                None,
                "watch",
                ["", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods",
                None,
                "watch",
                ["", "v1", "a", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/",
                None,
                "list",
                ["", "v1", "a", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/web",
                None,
                "get",
                ["", "v1", "a", "pods", "web", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/web/log?follow=1",
                None,
                "get",
                ["", "v1", "a", "pods", "web", "log"],
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/web/binding",
                None,
                "create",
                ["", "v1", "a", "pods", "web", "binding"],
            ),
            (
                "GET",
                "/api/v1/namespaces",
                None,
                "list",
                ["", "v1", "", "namespaces", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                None,
                "get",
                ["", "v1", "a", "namespaces", "a", ""],
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                None,
                "update",
                ["", "v1", "a", "namespaces", "a", "finalize"],
            ),
            (
                "PATCH",
                "/api/v1/namespaces/a/status",
                None,
                "patch",
                ["", "v1", "a", "namespaces", "a", "status"],
            ),
            (
                "GET",
                "/api/v1/nodes/n%2F1",
                None,
                "get",
                ["", "v1", "", "nodes", "n/1", ""],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                None,
                "deletecollection",
                ["apps", "v1", "a", "deployments", "", ""],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments/d",
                None,
                "delete",
                ["apps", "v1", "a", "deployments", "d", ""],
            ),
            (
                "GET",
                "/at/120/apis/apps/v1/deployments",
                Some("120"),
                "list",
                ["apps", "v1", "", "deployments", "", ""],
            ),
            (
                "GET",
                "/at/2026-11-21T08%3A00%3A00Z/api/v1/nodes/n",
                Some("2026-11-21T08:00:00Z"),
                "get",
                ["", "v1", "", "nodes", "n", ""],
            ),
            (
                "POST",
                "/at/1/api/v1/nodes",
                Some("1"),
                "create",
                ["", "v1", "", "nodes", "", ""],
            ),
            (
                "GET",
                "/at/1/api/v1/nodes?watch=1",
                Some("1"),
                "watch",
                ["", "v1", "", "nodes", "", ""],
            ),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                None,
                "create",
                [
                    "authorization.k8s.io",
                    "v1",
                    "",
                    "selfsubjectaccessreviews",
                    "",
                    "",
                ],
            ),
        ];
        for (method, url, at, verb, fields) in rows {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = RequestInfo::read(
                &Method::from_bytes(method.as_bytes()).unwrap(),
                path,
                &Query::parse(query),
            );
            let resource = info.resource.unwrap();
            let read = [
                &resource.group,
                &resource.version,
                &resource.namespace,
                &resource.resource,
                &resource.name,
                &resource.subresource,
            ];
            assert_eq!(
                (info.at.as_deref(), info.verb, read.map(String::as_str)),
                (at, verb, fields),
                "{method} {url}"
            );
        }
        for (url, path, at) in [
            ("/version", "/version", None),
            ("/apis/apps", "/apis/apps", None),
            ("/apis/apps/v1", "/apis/apps/v1", None),
            ("/api/", "/api/", None),
            ("/at/7/apis", "/apis", Some("7")),
            ("/at/7", "/", Some("7")),
            ("/reckon/v1/history", "/reckon/v1/history", None),
        ] {
            let info = RequestInfo::read(&Method::GET, url, &Query::default());
            assert_eq!(
                (info.path.as_str(), info.at.as_deref(), info.resource),
                (path, at, None),
                "{url}"
            );
        }
    }
}
