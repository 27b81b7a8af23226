//! Who asks: a client certificate's names, nobody, or whom a `system:masters` stands in for.
//!
//! CN is the user, each O a group (Kubernetes: x509 authentication). Without a certificate one is `system:anonymous`, who may do next to
//! nothing but is told so by authorization. A bearer token is refused: no tokens are issued yet, and a token that is
//! ignored would let its bearer go on as somebody else.

use super::{Caller, authorize};
use http::HeaderMap;
use kinds::error::StatusError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(crate) const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
    /// Who really asks, when `name` is impersonated.
    pub impersonator: Option<String>,
}

impl User {
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// `userInfo` of reviews.
    pub fn to_value(&self) -> Value {
        let mut info = Map::new();
        info.insert("username".into(), json!(self.name));
        if !self.uid.is_empty() {
            info.insert("uid".into(), json!(self.uid));
        }
        if !self.groups.is_empty() {
            info.insert("groups".into(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            info.insert("extra".into(), json!(self.extra));
        }
        Value::Object(info)
    }
}

pub(crate) fn authenticate(caller: &Caller, headers: &HeaderMap) -> Result<User, StatusError> {
    let user = match &caller.certificate {
        Some(certificate) => {
            let mut groups = certificate.organizations.clone();
            add(&mut groups, AUTHENTICATED);
            User {
                name: certificate.common_name.clone(),
                groups,
                ..User::default()
            }
        }
        None if headers.contains_key(http::header::AUTHORIZATION) => {
            return Err(StatusError::unauthorized());
        }
        None => User {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..User::default()
        },
    };
    impersonate(user, headers)
}

/// Whether a request asks to be taken for somebody else's.
pub(crate) fn impersonates(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"))
}

/// `Impersonate-User`, `-Group`, `-Uid`, `-Extra-…`.
fn impersonate(real: User, headers: &HeaderMap) -> Result<User, StatusError> {
    if !impersonates(headers) {
        return Ok(real);
    }
    let texts = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let name = texts("impersonate-user")
        .into_iter()
        .next()
        .unwrap_or_default();
    let mut groups = texts("impersonate-group");
    let uid = texts("impersonate-uid")
        .into_iter()
        .next()
        .unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            extra
                .entry(super::query::decode(key, false))
                .or_default()
                .push(value);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(real);
        }
        return Err(StatusError::bad_request(format!(
            "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:[]string{{{}}}, Extra:map[string][]string(nil)}} without impersonating a user name",
            groups
                .iter()
                .map(|group| format!("{group:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        )));
    }
    if !authorize::is_master(&real) {
        let text = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            real.name
        );
        return Err(StatusError::forbidden("", "users", &name, &text));
    }
    if groups.is_empty()
        && let Some(namespace) = service_account(&name)
    {
        groups = vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    if name == ANONYMOUS {
        add(&mut groups, UNAUTHENTICATED);
    } else if !groups.iter().any(|group| group == UNAUTHENTICATED) {
        add(&mut groups, AUTHENTICATED);
    }
    Ok(User {
        name,
        uid,
        groups,
        extra,
        impersonator: Some(real.name),
    })
}

fn add(groups: &mut Vec<String>, group: &str) {
    if !groups.iter().any(|one| one == group) {
        groups.push(group.to_owned());
    }
}

/// `system:serviceaccount:<namespace>:<name>`
fn service_account(user: &str) -> Option<&str> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ClientCertificate;

    #[test]
    fn certificates_and_impersonation_name_the_user() {
        let admin = Some(("admin", vec!["system:masters"]));
        let ann = Some(("ann", vec!["team"]));
        // certificate, headers, user and groups or the code
        type Row = (
            Option<(&'static str, Vec<&'static str>)>,
            &'static [(&'static str, &'static str)],
            Result<(&'static str, &'static str), u16>,
        );
        let rows: [Row; 10] = [
            (None, &[], Ok((ANONYMOUS, "system:unauthenticated"))),
            (None, &[("authorization", "Bearer nonsense")], Err(401)),
            (ann.clone(), &[], Ok(("ann", "team,system:authenticated"))),
            (ann, &[("impersonate-user", "bob")], Err(403)),
            (None, &[("impersonate-user", "bob")], Err(403)),
            (
                admin.clone(),
                &[("impersonate-user", "ann")],
                Ok(("ann", "system:authenticated")),
            ),
            (
                admin.clone(),
                &[
                    ("impersonate-user", "ann"),
                    ("impersonate-group", "a"),
                    ("impersonate-group", "b"),
                ],
                Ok(("ann", "a,b,system:authenticated")),
            ),
            (
                admin.clone(),
                &[("impersonate-user", "system:serviceaccount:ns:robot")],
                Ok((
                    "system:serviceaccount:ns:robot",
                    "system:serviceaccounts,system:serviceaccounts:ns,system:authenticated",
                )),
            ),
            (
                admin.clone(),
                &[("impersonate-user", ANONYMOUS)],
                Ok((ANONYMOUS, "system:unauthenticated")),
            ),
            (admin, &[("impersonate-group", "x")], Err(400)),
        ];
        for (certificate, headers, expected) in rows {
            let certificate = certificate.map(|(name, groups)| ClientCertificate {
                common_name: name.into(),
                organizations: groups.into_iter().map(Into::into).collect(),
            });
            let certificate = certificate.map(std::sync::Arc::new);
            let caller = Caller::new(([127, 0, 0, 1], 1).into(), certificate);
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let user = authenticate(&caller, &map).map_err(|error| error.code);
            let user = user.map(|user| (user.name, user.groups.join(",")));
            assert_eq!(
                user,
                expected.map(|(name, groups)| (name.to_owned(), groups.to_owned())),
                "{headers:?}"
            );
        }
    }
}
