//! One request on its way through: what every verb gets to know, and which file answers it.

use super::authenticate::User;
use super::negotiate::Accept;
use super::request_info::{RequestInfo, ResourcePath};
use super::{Api, Query, Reply};
use super::{
    create, delete, delete_collection, discovery, patch, read, subresources, text, update,
    virtual_kinds, watch,
};
use crate::archive::{self, Archiving};
use crate::core::{Core, Request};
use crate::members;
use crate::timetravel::{self, Moment};
use bytes::Bytes;
use eventstore::Key;
use http::{HeaderMap, header};
use kinds::error::StatusError;
use kinds::kind::{Context, Kind, Subresource};
use kinds::resources;
use kinds::table::IncludeObject;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

pub(crate) struct Call {
    pub api: Api,
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub user: User,
    /// The proposal's id and actor; each proposal takes it and puts it back with its attempt.
    pub request: Mutex<Request>,
    pub deadline: Instant,
}

/// What a path names, once the table of kinds knows it.
#[derive(Clone)]
pub(crate) struct Target {
    pub kind: &'static Kind,
    /// `""` for all, or for what has none.
    pub namespace: String,
    /// `""` for a collection.
    pub name: String,
}

impl Target {
    pub fn key(&self) -> Key {
        self.key_of(&self.name)
    }

    pub fn key_of(&self, name: &str) -> Key {
        let namespace = if self.kind.namespaced {
            self.namespace.as_str()
        } else {
            ""
        };
        Key::new(self.kind.resource(), namespace, name)
    }

    pub fn not_found(&self) -> StatusError {
        StatusError::not_found(self.kind.group, self.kind.plural, &self.name)
    }

    pub fn conflict(&self) -> StatusError {
        StatusError::modified(self.kind.group, self.kind.plural, &self.name)
    }
}

impl Call {
    /// How the archive stands, if this server keeps one.
    pub fn archiving(&self) -> Option<Archiving> {
        archive::shown(self.core(), &self.api.settings().archiving)
    }

    pub fn core(&self) -> &Core {
        self.api.core()
    }

    pub fn request(&self) -> Request {
        self.request
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn put_request(&self, request: Request) {
        *self.request.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// The same caller's, for a proposal of its own.
    pub fn another(&self) -> Self {
        let own = self.request();
        Self {
            api: self.api.clone(),
            info: self.info.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            user: self.user.clone(),
            request: Mutex::new(self.core().request(own.actor, own.cause)),
            deadline: self.deadline,
        }
    }

    pub fn accept(&self) -> Result<Accept, StatusError> {
        let header: Vec<String> = self
            .headers
            .get_all(header::ACCEPT)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        Accept::read(&header.join(","))
    }

    pub fn accept_header(&self) -> String {
        text(&self.headers, header::ACCEPT)
    }

    pub fn content_type(&self) -> String {
        text(&self.headers, header::CONTENT_TYPE)
    }

    pub fn include(&self) -> Result<IncludeObject, StatusError> {
        IncludeObject::parse(self.query.text("includeObject"))
    }

    pub fn now_ms(&self) -> i64 {
        self.core().now().ms()
    }

    /// What hooks may know. A new suffix each time: a name that was taken is not tried twice.
    pub fn context(&self) -> Context {
        Context {
            now: self.core().now().to_string(),
            user: self.user.name.clone(),
            suffix: self.core().draw().suffix(),
        }
    }

    pub async fn route(self) -> Result<Reply, StatusError> {
        let moment = match self.info.at.clone() {
            None => None,
            Some(_) if self.info.verb == "watch" => {
                return Err(StatusError::bad_request(
                    "the past does not change: a watch needs the present; leave out /at/…",
                ));
            }
            Some(_) if !matches!(self.info.verb, "get" | "list" | "head" | "options") => {
                let mut error = StatusError::method_not_allowed();
                error.message = "the past can only be read".into();
                return Err(error);
            }
            Some(at) => Some(Moment::named(self.core(), &at, self.deadline).await?),
        };
        match self.info.resource.clone() {
            Some(path) => self.resource(path, moment).await,
            None if members::answers(&self.info.path) => members::serve(&self).await,
            None if self.info.path.starts_with("/reckon/v1/") => timetravel::serve(&self).await,
            None => discovery::serve(&self).await,
        }
    }

    async fn resource(
        &self,
        path: ResourcePath,
        moment: Option<Moment>,
    ) -> Result<Reply, StatusError> {
        if let Some(kind) = resources::virtual_by_plural(&path.group, &path.version, &path.resource)
        {
            return virtual_kinds::serve(self, kind, &path).await;
        }
        let Some(kind) = resources::by_plural(&path.group, &path.version, &path.resource) else {
            return discovery::unknown(&path);
        };
        if path.too_long
            || (!kind.namespaced && !path.namespace.is_empty() && path.resource != "namespaces")
        {
            return Err(StatusError::no_such_path());
        }
        let namespace = if kind.namespaced {
            path.namespace
        } else {
            String::new()
        };
        let target = Target {
            kind,
            namespace,
            name: path.name,
        };
        if !path.subresource.is_empty() {
            let found = kind
                .subresources
                .iter()
                .copied()
                .find(|subresource: &Subresource| subresource.name() == path.subresource);
            let subresource = found.ok_or_else(StatusError::no_such_path)?;
            return subresources::serve(self, &target, subresource, moment).await;
        }
        let across = kind.namespaced && target.namespace.is_empty();
        match self.info.verb {
            "list" => read::list(self, &target, moment).await,
            "watch" => watch::serve(self, &target).await,
            // Below here something is named, or made: not across all namespaces.
            _ if across && (!target.name.is_empty() || self.info.verb != "deletecollection") => {
                Err(if target.name.is_empty() {
                    StatusError::method_not_allowed()
                } else {
                    StatusError::no_such_path()
                })
            }
            "get" => read::get(self, &target, moment).await,
            "create" if target.name.is_empty() => create::serve(self, &target).await,
            "update" if !target.name.is_empty() => update::serve(self, &target).await,
            "patch" if !target.name.is_empty() => patch::serve(self, &target).await,
            "delete" => delete::serve(self, &target).await,
            "deletecollection" if kind.verbs.contains(&"deletecollection") && !across => {
                delete_collection::serve(self, &target).await
            }
            _ => Err(StatusError::method_not_allowed()),
        }
    }
}
