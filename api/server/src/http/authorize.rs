//! Who may do what. For now: `system:masters` everything, anybody else next to nothing.
//!
//! What is left to others is what Kubernetes gives them by default: health and version to all, discovery and questions about oneself to those with a
//! certificate. The agents' and the servers' paths never come here: their own services check their own certificates.

use super::authenticate::{AUTHENTICATED, User};
use super::request_info::RequestInfo;
use kinds::error::{StatusError, go_quote};

const MASTERS: &str = "system:masters";
/// Open to all (Kubernetes: ClusterRole system:public-info-viewer).
const PUBLIC_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// Open to all who want to join: the authority's certificate, which is no secret, and the door where a token is shown.
const JOIN_PATHS: &[(&str, &str)] = &[("get", "/reckon/v1/ca"), ("post", "/reckon/v1/join")];
/// Open to whoever is known (ClusterRole system:discovery).
const DISCOVERY_PATHS: &[&str] = &["/api", "/apis", "/openapi"];
/// Questions about oneself (ClusterRole system:basic-user): group and resource, to be created.
const SELF_REVIEWS: &[(&str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// What is asked about: the same words in a request, and in an access review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub verb: String,
    pub group: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Of what is no resource; else `""`.
    pub path: String,
}

impl Attributes {
    pub fn of(info: &RequestInfo) -> Self {
        match &info.resource {
            Some(resource) => Self {
                verb: info.verb.to_owned(),
                group: resource.group.clone(),
                namespace: resource.namespace.clone(),
                resource: resource.resource.clone(),
                subresource: resource.subresource.clone(),
                name: resource.name.clone(),
                path: String::new(),
            },
            None => Self {
                verb: non_resource_verb(info.verb).to_owned(),
                path: info.path.clone(),
                ..Self::default()
            },
        }
    }
}

/// Verbs of what is no resource are the methods.
fn non_resource_verb(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    }
}

pub(crate) fn is_master(user: &User) -> bool {
    user.is_in(MASTERS)
}

pub(crate) fn allowed(user: &User, asked: &Attributes) -> bool {
    if is_master(user) {
        return true;
    }
    let below = |roots: &[&str]| {
        roots.iter().any(|root| {
            asked
                .path
                .strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    if JOIN_PATHS.contains(&(asked.verb.as_str(), asked.path.as_str())) {
        return true;
    }
    if !asked.path.is_empty() {
        return asked.verb == "get"
            && (below(PUBLIC_PATHS) || (user.is_in(AUTHENTICATED) && below(DISCOVERY_PATHS)));
    }
    user.is_in(AUTHENTICATED)
        && asked.verb == "create"
        && SELF_REVIEWS
            .iter()
            .any(|(group, resource)| *group == asked.group && *resource == asked.resource)
}

/// 403 in Kubernetes' words.
pub(crate) fn authorize(user: &User, asked: &Attributes) -> Result<(), StatusError> {
    if allowed(user, asked) {
        return Ok(());
    }
    let who = format!("User {} cannot {}", go_quote(&user.name), asked.verb);
    if !asked.path.is_empty() {
        return Err(StatusError::forbidden(
            "",
            "",
            "",
            &format!("{who} path {}", go_quote(&asked.path)),
        ));
    }
    let resource = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let scope = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", go_quote(namespace)),
    };
    let text = format!(
        "{who} resource {} in API group {} {scope}",
        go_quote(&resource),
        go_quote(&asked.group)
    );
    Err(StatusError::forbidden(
        &asked.group,
        &asked.resource,
        &asked.name,
        &text,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;
    use http::Method;

    #[test]
    fn masters_may_do_everything_and_others_next_to_nothing() {
        let admin = User {
            name: "admin".into(),
            groups: vec![MASTERS.into(), AUTHENTICATED.into()],
            ..User::default()
        };
        let ann = User {
            name: "ann".into(),
            groups: vec![AUTHENTICATED.into()],
            ..User::default()
        };
        let nobody = User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..User::default()
        };
        // user, method, path, what is said
        let rows = [
            (&admin, "DELETE", "/api/v1/namespaces/a/pods/p", ""),
            (&admin, "GET", "/metrics", ""),
            (&ann, "GET", "/apis/apps", ""),
            (&ann, "GET", "/apis/apps/v1", ""),
            (
                &ann,
                "POST",
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                "",
            ),
            (&nobody, "GET", "/version", ""),
            (&nobody, "GET", "/readyz/ping", ""),
            (&nobody, "GET", "/reckon/v1/ca", ""),
            (&nobody, "POST", "/reckon/v1/join", ""),
            (
                &ann,
                "GET",
                "/reckon/v1/members",
                "forbidden: User \"ann\" cannot get path \"/reckon/v1/members\"",
            ),
            (
                &ann,
                "POST",
                "/reckon/v1/members/transfer-leader",
                "forbidden: User \"ann\" cannot post path \"/reckon/v1/members/transfer-leader\"",
            ),
            (
                &ann,
                "GET",
                "/metrics",
                "forbidden: User \"ann\" cannot get path \"/metrics\"",
            ),
            (
                &nobody,
                "GET",
                "/apis",
                "forbidden: User \"system:anonymous\" cannot get path \"/apis\"",
            ),
            (
                &nobody,
                "GET",
                "/versions",
                "forbidden: User \"system:anonymous\" cannot get path \"/versions\"",
            ),
            (
                &ann,
                "GET",
                "/api/v1/namespaces/n/pods",
                "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"n\"",
            ),
            (
                &ann,
                "GET",
                "/api/v1/namespaces/n/pods?watch=1",
                "pods is forbidden: User \"ann\" cannot watch resource \"pods\" in API group \"\" in the namespace \"n\"",
            ),
            (
                &ann,
                "GET",
                "/at/5/api/v1/nodes",
                "nodes is forbidden: User \"ann\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
            ),
            (
                &ann,
                "GET",
                "/apis/apps/v1/namespaces/n/deployments/d/scale",
                "deployments.apps \"d\" is forbidden: User \"ann\" cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \"n\"",
            ),
            (
                &ann,
                "DELETE",
                "/api/v1/namespaces/n/configmaps",
                "configmaps is forbidden: User \"ann\" cannot deletecollection resource \"configmaps\" in API group \"\" in the namespace \"n\"",
            ),
            (
                &ann,
                "GET",
                "/api/v1/namespaces/n",
                "namespaces \"n\" is forbidden: User \"ann\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"n\"",
            ),
        ];
        for (user, method, url, said) in rows {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = RequestInfo::read(
                &Method::from_bytes(method.as_bytes()).unwrap(),
                path,
                &Query::parse(query),
            );
            let found = authorize(user, &Attributes::of(&info))
                .map_or_else(|error| error.message, |()| String::new());
            assert_eq!(found, said, "{method} {url}");
        }
    }
}
