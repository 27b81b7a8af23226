//! A kind's row: all that the generic engine knows of it.

use crate::error::{FieldError, StatusError};
use serde_json::Value;
use std::net::IpAddr;

/// What a hook may know besides the objects: everything that is not a pure function of them.
#[derive(Clone, Debug)]
pub struct Context {
    /// The log's clock, RFC 3339 with seconds, for times that a writer puts into a body.
    pub now: String,
    /// Who asks.
    pub user: String,
    /// A random suffix of five characters out of `bcdfghjklmnpqrstvwxz2456789`, for `generateName` and what else needs one.
    pub suffix: String,
}

/// Desired state is restored, observed state is not (node, lease, event, endpoint slice …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Desired,
    Observed,
}

/// What writes a part of an object apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// PUT and PATCH change `status` (and metadata as Kubernetes lets them) alone.
    Status,
    /// `autoscaling/v1` Scale over `.spec.replicas`.
    Scale,
    /// Pod: POST a Binding.
    Binding,
    /// Pod: POST an Eviction.
    Eviction,
    /// Pod: GET its container's log. Served by the agent.
    Log,
    /// Namespace: PUT its finalizers.
    Finalize,
    /// ServiceAccount: POST a TokenRequest.
    Token,
}

impl Subresource {
    /// The word that stands last in its path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
            Self::Token => "token",
        }
    }

    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Finalize => &["update"],
        }
    }

    /// (group, version, kind) of what goes in and out, where it is not the object's own.
    pub const fn other_kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Log | Self::Finalize => None,
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        }
    }
}

/// Something that one object of the cluster may have at a time: the server makes a claim key of it in the same proposal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    ServiceAddress(IpAddr),
    NodePort(u16),
}

/// What an object needs to be given before it can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// An address for services of this family: the one named, or any.
    ServiceAddress {
        path: String,
        ipv6: bool,
        fixed: Option<IpAddr>,
    },
    /// A port of all nodes: the one named, or any.
    NodePort { path: String, fixed: Option<u16> },
}

/// One column of `kubectl get`, as in Kubernetes' printers and CRDs' additionalPrinterColumns.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date` …
    pub type_: &'static str,
    /// `name` for the first column, else `""`.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// Code where a schema does not reach. All are pure; each default does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Defaults that the schema does not tell, on every decode (Kubernetes: `SetDefaults_…`), after the schema's own.
    pub default: fn(&mut Value),
    /// Before validation of a create: drops status, sets generation and what the strategy sets (Kubernetes: `PrepareForCreate`).
    pub prepare_create: fn(&mut Value, &Context),
    /// Before validation of an update (old, new): what may not be changed by this path is taken from old; bumps generation when spec changed.
    pub prepare_update: fn(&Value, &mut Value, &Context),
    /// The same for the status subresource: everything but status is taken from old.
    pub prepare_status: fn(&Value, &mut Value, &Context),
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// (old, new), besides `validate` of new: immutable fields and the like.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    pub validate_status: fn(&Value, &Value) -> Vec<FieldError>,
    /// What the object holds. After an update the server claims what is new and releases what is gone.
    pub claims: fn(&Value) -> Vec<Claim>,
    /// What it needs and does not hold, after validation. Writes what follows from the families that the cluster has
    /// (true: IPv6; the first is the cluster's own choice).
    pub wants: fn(&mut Value, &[bool]) -> Vec<Want>,
    /// Writes what was given, one for each want and in the same order.
    pub grant: fn(&mut Value, &[Claim]),
    /// Texts for `Warning` headers.
    pub warnings: fn(Option<&Value>, &Value) -> Vec<String>,
    /// One row of `kubectl get`: a cell for each column, in order. `now` is for ages.
    pub cells: fn(&Value, now_ms: i64) -> Vec<Value>,
    /// What the start of a deletion that does not end at once changes in the body, besides the stamps and the generation.
    pub begin_delete: fn(&mut Value),
    /// Grace in seconds for a DELETE with the given `gracePeriodSeconds` (None: not named); None: the kind is not deleted gracefully.
    pub delete_grace: fn(&Value, Option<i64>) -> Option<i64>,
    /// The value of a field that may stand in a field selector besides metadata.name and metadata.namespace.
    pub field: fn(&Value, &str) -> Option<String>,
}

impl Hooks {
    /// No code: objects are what they say, `status` is changed by its subresource alone.
    pub const NONE: Self = Self {
        default: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        prepare_status: |old, new, _| crate::resources::strategy::keep_all_but_status(old, new),
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        claims: |_| Vec::new(),
        wants: |_, _| Vec::new(),
        grant: |_, _| {},
        warnings: |_, _| Vec::new(),
        cells: crate::table::name_and_age,
        begin_delete: |_| {},
        delete_grace: |_, _| None,
        field: |_, _| None,
    };
}

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `""` for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub nature: Nature,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Its schema's name in the OpenAPI documents: `io.k8s.api.apps.v1.Deployment`.
    pub schema: &'static str,
    /// How names of its objects are checked.
    pub name_rule: NameRule,
    pub columns: &'static [Column],
    /// Fields that a field selector may name besides metadata.name and metadata.namespace.
    pub selectable: &'static [&'static str],
    /// PUT to a name that is not there creates it (Kubernetes: `AllowCreateOnUpdate`).
    pub put_creates: bool,
    /// PUT without resourceVersion is allowed (Kubernetes: `AllowUnconditionalUpdate`).
    pub unconditional_update: bool,
    /// What `propagationPolicy` is when a DELETE names none.
    pub default_propagation: Propagation,
    /// A DELETE that ends at once is answered with the object and not with a Status (Kubernetes: `ReturnDeletedObject`).
    pub returns_deleted: bool,
    /// `metadata.generation` is kept: 1 at creation, more with each change that `prepare_update` counts.
    pub generation: bool,
    pub hooks: Hooks,
}

/// A kind that is answered and never stored: reviews, and what stands in a body alone.
#[derive(Clone, Copy, Debug)]
pub struct VirtualKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label (namespaces, and since 1.36 services).
    Label,
    /// Anything that fits into a path (RBAC).
    PathSegment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What most kinds can do.
pub const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

impl Kind {
    /// A row to start from: namespaced desired state with all verbs, a subdomain's name and no code of its own.
    pub const ROW: Self = Self {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        nature: Nature::Desired,
        verbs: ALL_VERBS,
        subresources: &[],
        schema: "",
        name_rule: NameRule::Subdomain,
        columns: &[],
        selectable: &[],
        put_creates: false,
        unconditional_update: true,
        default_propagation: Propagation::Background,
        returns_deleted: false,
        generation: false,
        hooks: Hooks::NONE,
    };

    /// `apps/deployments`, or `pods` in the core group: the store's word for it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}/{}", self.group, self.plural)
        }
    }

    /// `apps/v1`, or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

/// The result of a check over an object.
pub type Checked<T> = Result<T, StatusError>;
