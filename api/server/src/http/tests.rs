//! The whole front door over one server without sockets: a row is a request and what it is answered.

use super::{Api, Body, Caller, ClientCertificate};
use crate::config::{Config, HistoryRetention, Joined, Member};
use crate::core::{Core, QueueLimits};
use crate::server::Parts;
use bytes::Bytes;
use eventstore::Actor;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use seams::{
    Clock, FileDirectory, MemoryHub, Runtime, Seams, Strand, SystemClock, SystemEntropy,
    ThreadRuntime,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Server {
    api: Api,
    parts: Parts,
    directory: tempfile::TempDir,
}

/// What may be other than usual of a server.
#[derive(Clone)]
pub(crate) struct Setup {
    pub queue: QueueLimits,
    pub retention: HistoryRetention,
    pub archive: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub runtime: Arc<dyn Runtime>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            queue: QueueLimits::default(),
            retention: HistoryRetention::default(),
            archive: None,
            clock: Arc::new(SystemClock),
            runtime: Arc::new(ThreadRuntime),
        }
    }
}

impl Setup {
    fn queueing(queue: QueueLimits) -> Self {
        Self {
            queue,
            ..Self::default()
        }
    }
}

/// One server that leads itself, its reconcilers running.
pub(crate) async fn server() -> Server {
    server_with(Setup::default()).await
}

pub(crate) async fn server_with(setup: Setup) -> Server {
    let place = Place {
        setup,
        ..Place::first("server-1", &["server-1"], &MemoryHub::default())
    };
    let server = start(place).await;
    server.founded().await;
    server
}

/// So many servers of one cluster.
pub(crate) async fn cluster(servers: usize) -> Vec<Server> {
    cluster_of(vec![Setup::default(); servers]).await
}

pub(crate) async fn cluster_of(setups: Vec<Setup>) -> Vec<Server> {
    let hub = MemoryHub::default();
    let names: Vec<String> = (1..=setups.len())
        .map(|number| format!("server-{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let starting = names.iter().zip(setups).map(|(name, setup)| {
        start(Place {
            setup,
            ..Place::first(name, &names, &hub)
        })
    });
    let servers = futures::future::join_all(starting).await;
    for server in &servers {
        server.founded().await;
    }
    servers
}

/// Where a server comes in, and with what.
pub(crate) struct Place {
    pub name: String,
    pub first_members: Vec<String>,
    pub joined: Option<Joined>,
    pub hub: MemoryHub,
    pub setup: Setup,
    /// The authority's certificate, and its key where this server is to sign.
    pub authority: (String, Option<PathBuf>),
}

impl Place {
    pub fn first(name: &str, members: &[&str], hub: &MemoryHub) -> Self {
        Self {
            name: name.to_owned(),
            first_members: members.iter().map(|name| (*name).to_owned()).collect(),
            joined: None,
            hub: hub.clone(),
            setup: Setup::default(),
            authority: ("the authority".to_owned(), None),
        }
    }
}

pub(crate) async fn start(place: Place) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let address = |name: &str| format!("{name}:6443");
    let (ca_pem, ca_key) = place.authority;
    let setup = place.setup;
    let config = Config {
        name: place.name.clone(),
        data_dir: directory.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: address(&place.name),
        initial_cluster: place
            .first_members
            .iter()
            .map(|name| Member {
                name: name.clone(),
                address: address(name),
            })
            .collect(),
        joined: place.joined,
        ca_key,
        ca: "none".into(),
        cert: "none".into(),
        key: "none".into(),
        node_grace_s: 40,
        default_not_ready_toleration_s: 300,
        service_cidr: Config::SERVICE_CIDR.into(),
        retention: setup.retention,
        snapshots: crate::config::Snapshots::default(),
        archive: setup.archive,
        queue: setup.queue,
        disk_reserve: crate::config::DiskReserve::Bytes(0),
        most_level: eventstore::LEVEL,
        most_outcomes: 100,
    };
    let seams = Seams {
        directory: Arc::new(FileDirectory::open(directory.path()).unwrap()),
        network: place.hub.plug(&place.name),
        clock: setup.clock,
        runtime: setup.runtime,
        entropy: Arc::new(SystemEntropy),
        strand: Strand::new(),
    };
    let parts = Parts::start(&config, seams, ca_pem, None).await.unwrap();
    Server {
        api: parts.api.clone(),
        parts,
        directory,
    }
}

impl Server {
    pub(crate) async fn founded(&self) {
        for _ in 0..400 {
            if self
                .get("/api/v1/namespaces/default/serviceaccounts/default")
                .await
                .0
                == 200
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (status, events) = (
            self.get("/reckon/v1/status").await,
            self.get("/reckon/v1/events").await,
        );
        panic!("the server did not found its cluster: {status:?} {events:?}");
    }

    pub(crate) fn core(&self) -> &Core {
        &self.parts.core
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> (u16, Value) {
        let (code, _, body) = self.exchange(method, path, content_type, body).await;
        (code, body)
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> (u16, HeaderMap, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("user-agent", "test/1");
        let request = request.body(Full::new(body.into())).unwrap();
        self.ask(request, caller()).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>, caller: Caller) -> (u16, HeaderMap, Value) {
        let response = self.api.handle(request, caller).await;
        assert!(response.headers().contains_key("audit-id"));
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (code, headers, value)
    }

    /// An answer whose body is for the test to read, or not.
    pub(crate) async fn open(&self, path: &str) -> Body {
        let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
        let response = self.api.handle(request, caller()).await;
        assert_eq!(response.status(), 200, "{path}");
        response.into_body()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", Bytes::new()).await
    }

    /// A POST by whoever shows a certificate of this name and organization; None: by one who shows none.
    pub(crate) async fn post_as(
        &self,
        who: Option<(&str, &str)>,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Full::new(body.to_string().into()))
            .unwrap();
        let (code, _, answer) = self.ask(request, caller_as(who)).await;
        (code, answer)
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        self.send(method, path, content_type, body.to_string())
            .await
    }
}

fn caller() -> Caller {
    caller_as(Some(("admin", "system:masters")))
}

fn caller_as(who: Option<(&str, &str)>) -> Caller {
    let certificate = who.map(|(name, organization)| {
        Arc::new(ClientCertificate {
            common_name: name.into(),
            organizations: vec![organization.into()],
        })
    });
    Caller::new(([127, 0, 0, 1], 1).into(), certificate)
}

#[test]
fn a_connection_is_known_again_and_each_call_is_still_its_own() {
    let caller = caller();
    // Program, whom it stands in for; whom events name then.
    for (program, stands_in, user, impersonator) in [
        ("kubectl", None, "admin", None),
        ("kubectl", None, "admin", None),
        ("kubectl", Some("ann"), "ann", Some("admin")),
        ("helm", None, "admin", None),
        ("", None, "admin", None),
        ("kubectl", None, "admin", None),
    ] {
        let mut headers = HeaderMap::new();
        if !program.is_empty() {
            headers.insert(header::USER_AGENT, program.parse().unwrap());
        }
        if let Some(name) = stands_in {
            headers.insert("impersonate-user", name.parse().unwrap());
            headers.insert("impersonate-group", "system:masters".parse().unwrap());
        }
        let actor = super::master(&caller, &headers).unwrap();
        let Actor::User {
            user: named,
            client,
            impersonator: by,
            ..
        } = actor
        else {
            panic!("{actor:?}");
        };
        assert_eq!(
            (named.as_str(), client.as_str(), by.as_deref()),
            (user, program, impersonator),
            "{program} {stands_in:?}"
        );
    }
    // One that may do everything stands in for one that may not.
    let mut headers = HeaderMap::new();
    headers.insert("impersonate-user", "ann".parse().unwrap());
    let refused = super::master(&caller, &headers).map_err(|error| error.code);
    assert_eq!(refused, Err(403));
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, text: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": text}})
}

/// method, path, content type, body, code, reason
type Row = (
    &'static str,
    String,
    &'static str,
    Vec<u8>,
    u16,
    &'static str,
);

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_status_and_leaves_no_event() {
    let server = server().await;
    let (code, made) = server.json("POST", MAPS, map("there", "1")).await;
    assert_eq!(code, 201, "{made}");
    let version = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let (code, _) = server
        .json(
            "PATCH",
            &format!("{MAPS}/there"),
            json!({"data": {"k": "2"}}),
        )
        .await;
    assert_eq!(code, 200);
    let (code, sealed) = server
        .json(
            "POST",
            MAPS,
            json!({"metadata": {"name": "sealed"}, "immutable": true, "data": {"a": "b"}}),
        )
        .await;
    assert_eq!(code, 201, "{sealed}");
    // Reconcilers may still be at work on the new cluster: what is asked below is whether these requests left anything.
    let mine = |value: &Value| {
        value["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["actor"]["kind"] == "user")
            .count()
    };
    let before = mine(&server.get("/reckon/v1/events?limit=1000").await.1);
    let there = format!("{MAPS}/there");
    let stale =
        json!({"metadata": {"name": "there", "resourceVersion": version}, "data": {"k": "3"}});
    let json_type = "application/json";
    let rows: Vec<Row> = vec![
        (
            "POST",
            MAPS.into(),
            json_type,
            b"{not json".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            b"[]".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            "application/yaml",
            b"a: [".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            "text/plain",
            b"a: b".to_vec(),
            415,
            "UnsupportedMediaType",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"metadata":{"name":"x"},"data":{"a":1}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"metadata":{"name":"Upper"}}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"metadata":{}}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"metadata":{"name":"x","namespace":"other"}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            br#"{"metadata":{"name":"there"}}"#.to_vec(),
            409,
            "AlreadyExists",
        ),
        (
            "POST",
            MAPS.into(),
            json_type,
            vec![b'x'; super::BODY_BYTES_MAX + 1],
            413,
            "RequestEntityTooLarge",
        ),
        (
            "POST",
            "/api/v1/namespaces/absent/configmaps".into(),
            json_type,
            br#"{"metadata":{"name":"x"}}"#.to_vec(),
            404,
            "NotFound",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/nonsense".into(),
            json_type,
            b"{}".to_vec(),
            404,
            "NotFound",
        ),
        (
            "POST",
            "/api/v1/configmaps".into(),
            json_type,
            br#"{"metadata":{"name":"x"}}"#.to_vec(),
            405,
            "MethodNotAllowed",
        ),
        (
            "POST",
            there.clone(),
            json_type,
            br#"{"metadata":{"name":"there"}}"#.to_vec(),
            405,
            "MethodNotAllowed",
        ),
        (
            "POST",
            format!("{MAPS}?fieldValidation=Strict"),
            json_type,
            br#"{"metadata":{"name":"x"},"dataa":{}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "POST",
            format!("{MAPS}?fieldValidation=Harsh"),
            json_type,
            br#"{"metadata":{"name":"x"}}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "POST",
            format!("{MAPS}?dryRun=Some"),
            json_type,
            br#"{"metadata":{"name":"x"}}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "PUT",
            there.clone(),
            json_type,
            stale.to_string().into_bytes(),
            409,
            "Conflict",
        ),
        (
            "PUT",
            there.clone(),
            json_type,
            br#"{"metadata":{"name":"other"}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "PUT",
            there.clone(),
            json_type,
            br#"{"metadata":{"name":"there","uid":"00000000-0000-0000-0000-000000000000"}}"#
                .to_vec(),
            409,
            "Conflict",
        ),
        (
            "PUT",
            format!("{MAPS}/absent"),
            json_type,
            br#"{"metadata":{"name":"absent"}}"#.to_vec(),
            404,
            "NotFound",
        ),
        (
            "PATCH",
            there.clone(),
            json_type,
            b"{}".to_vec(),
            415,
            "UnsupportedMediaType",
        ),
        (
            "PATCH",
            there.clone(),
            "application/merge-patch+json",
            b"{broken".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "PATCH",
            there.clone(),
            "application/json-patch+json",
            br#"[{"op":"test","path":"/data/k","value":"no"}]"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "PATCH",
            format!("{MAPS}/sealed"),
            "application/merge-patch+json",
            br#"{"data":{"a":"c"}}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "DELETE",
            format!("{MAPS}/absent"),
            json_type,
            b"".to_vec(),
            404,
            "NotFound",
        ),
        (
            "DELETE",
            there.clone(),
            json_type,
            br#"{"preconditions":{"uid":"x"}}"#.to_vec(),
            409,
            "Conflict",
        ),
        (
            "DELETE",
            there.clone(),
            json_type,
            br#"{"propagationPolicy":"Sideways"}"#.to_vec(),
            422,
            "Invalid",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default".into(),
            json_type,
            b"".to_vec(),
            403,
            "Forbidden",
        ),
        (
            "GET",
            format!("{MAPS}?labelSelector=a===b"),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            format!("{MAPS}?fieldSelector=data.k=1"),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            format!("{MAPS}?limit=2&continue=garbage"),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            format!("{MAPS}?limit=x"),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            format!("{MAPS}?resourceVersion=x"),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            format!("{MAPS}/absent"),
            "",
            b"".to_vec(),
            404,
            "NotFound",
        ),
        (
            "GET",
            "/at/noon/api/v1/nodes".into(),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            "/at/2999-01-01T00:00:00Z/api/v1/nodes".into(),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "GET",
            "/at/1999-01-01T00:00:00Z/api/v1/nodes".into(),
            "",
            b"".to_vec(),
            410,
            "Expired",
        ),
        (
            "GET",
            "/at/1/api/v1/nodes?watch=1".into(),
            "",
            b"".to_vec(),
            400,
            "BadRequest",
        ),
        (
            "DELETE",
            format!("/at/1{MAPS}/there"),
            json_type,
            b"".to_vec(),
            405,
            "MethodNotAllowed",
        ),
    ];
    for (method, path, content_type, body, code, reason) in rows {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (found, status) = server.send(method, &path, content_type, body).await;
        assert_eq!(
            (found, status["reason"].as_str().unwrap_or_default()),
            (code, reason),
            "{method} {path} {shown}: {status}"
        );
        assert_eq!(
            (status["kind"].as_str(), status["code"].as_u64()),
            (Some("Status"), Some(u64::from(code))),
            "{method} {path}"
        );
    }
    assert_eq!(
        mine(&server.get("/reckon/v1/events?limit=1000").await.1),
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_lives_and_its_past_stays() {
    let server = server().await;
    let (code, made) = server.json("POST", MAPS, map("web", "1")).await;
    assert_eq!((code, &made["data"]["k"]), (201, &json!("1")));
    let first = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{MAPS}/web");
    let (code, changed) = server
        .json("PATCH", &path, json!({"data": {"k": "2"}}))
        .await;
    assert_eq!(
        (code, &changed["data"]["k"], &changed["metadata"]["uid"]),
        (200, &json!("2"), &made["metadata"]["uid"])
    );
    let (_, same) = server
        .json("PATCH", &path, json!({"data": {"k": "2"}}))
        .await;
    assert_eq!(
        same["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"],
        "nothing changed, nothing was proposed"
    );
    let (code, gone) = server.json("DELETE", &path, json!({})).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")), "{gone}");
    assert_eq!(server.get(&path).await.0, 404);

    let (code, then) = server.get(&format!("/at/{first}{path}")).await;
    assert_eq!((code, &then), (200, &made));
    let (_, list) = server
        .get(&format!(
            "/at/{first}{MAPS}?fieldSelector=metadata.name%3Dweb"
        ))
        .await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");

    let (code, history) = server
        .get("/reckon/v1/history?resource=configmaps&namespace=default&name=web")
        .await;
    let told: Vec<(&str, &str, &str)> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["change"].as_str().unwrap(),
                item["intent"].as_str().unwrap(),
                item["actor"]["name"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("deleted", "Delete", "admin"),
        ("updated", "Patch", "admin"),
        ("created", "Create", "admin"),
    ];
    assert_eq!((code, told), (200, expected.to_vec()));
    assert_eq!(
        history["items"][1]["diff"],
        json!([{"path": "data.k", "from": "1", "to": "2"}])
    );

    let (code, why) = server
        .get("/reckon/v1/why?resource=configmaps&namespace=default&name=kube-root-ca.crt")
        .await;
    let chain = why["chain"].as_array().unwrap();
    assert_eq!(
        (code, chain[0]["actor"]["kind"].as_str(), &why["complete"]),
        (200, Some("reconciler"), &json!(true)),
        "{why}"
    );

    let (_, verified) = server.get("/reckon/v1/verify").await;
    assert_eq!(verified["ok"], json!(true), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_of_one_revision() {
    let server = server().await;
    for index in 0..5 {
        let (code, _) = server
            .json("POST", MAPS, map(&format!("a{index}"), "1"))
            .await;
        assert_eq!(code, 201);
    }
    let (_, first) = server.get(&format!("{MAPS}?limit=2")).await;
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a0".into(), "a1".into()], &json!(4))
    );
    assert!(first["items"][0].get("kind").is_none());
    // What is made or deleted between pages is not seen by later ones.
    assert_eq!(server.json("POST", MAPS, map("a11", "1")).await.0, 201);
    assert_eq!(
        server
            .json("DELETE", &format!("{MAPS}/a3"), json!({}))
            .await
            .0,
        200
    );
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await;
    assert_eq!(names(&second), ["a2", "a3"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let (_, selected) = server.get(&format!("{MAPS}?labelSelector=none")).await;
    assert!(names(&selected).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hold_their_addresses_alone() {
    let server = server().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, address: Option<&str>| {
        let mut object = json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        if let Some(address) = address {
            object["spec"]["clusterIP"] = json!(address);
        }
        object
    };
    let (code, made) = server.json("POST", services, service("a", None)).await;
    assert_eq!(code, 201, "{made}");
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!((30_000..=32_767).contains(&made["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    let (code, refused) = server
        .json("POST", services, service("b", Some(&address)))
        .await;
    assert_eq!(
        (code, refused["details"]["causes"][0]["field"].as_str()),
        (422, Some("spec.clusterIPs")),
        "{refused}"
    );
    assert_eq!(
        server
            .json("DELETE", &format!("{services}/a"), json!({}))
            .await
            .0,
        200
    );
    let (code, made) = server
        .json("POST", services, service("b", Some(&address)))
        .await;
    assert_eq!(
        (code, made["spec"]["clusterIP"].as_str()),
        (201, Some(address.as_str())),
        "{made}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_what_begins_and_ceases_to_match() {
    let server = server().await;
    let labelled = |label: &str| json!({"metadata": {"name": "w", "labels": {"on": label}}});
    let (_, made) = server.json("POST", MAPS, labelled("yes")).await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    for label in ["no", "yes"] {
        assert_eq!(
            server
                .json(
                    "PATCH",
                    &format!("{MAPS}/w"),
                    json!({"metadata": {"labels": {"on": label}}})
                )
                .await
                .0,
            200
        );
    }
    assert_eq!(
        server
            .json("DELETE", &format!("{MAPS}/w"), json!({}))
            .await
            .0,
        200
    );
    let (_, text) = server
        .get(&format!(
            "{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={from}&labelSelector=on%3Dyes"
        ))
        .await;
    let seen: Vec<Value> = text
        .as_str()
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<(&str, &str)> = seen
        .iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["labels"]["on"]
                    .as_str()
                    .unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("DELETED", "yes"), ("ADDED", "yes"), ("DELETED", "yes")]
    );
    let (_, text) = server
        .get(&format!("{MAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=on"))
        .await;
    assert_eq!(text["type"], json!("BOOKMARK"), "{text}");
    assert_eq!(
        text["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        json!("true")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_marked_as_its_kind_goes() {
    let server = server().await;
    // path, name, object, propagation, what a watch shows of its deletion: what happened, generation, grace
    type Seen = (&'static str, Option<i64>, Option<i64>);
    type Row = (
        &'static str,
        &'static str,
        Value,
        &'static str,
        &'static [Seen],
    );
    // Left alone by our scheduler, which would write to it that it fits nowhere, at a moment of its own.
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"schedulerName": "another", "containers": [{"name": "c", "image": "i"}]},
    });
    let rows: &[Row] = &[
        (
            "/api/v1/namespaces/default/pods",
            "p",
            pod,
            "Background",
            &[
                ("MODIFIED", Some(2), Some(0)),
                ("DELETED", Some(2), Some(0)),
            ],
        ),
        (
            MAPS,
            "gone",
            map("gone", "1"),
            "Background",
            &[("DELETED", None, None)],
        ),
        (
            "/api/v1/namespaces",
            "held",
            json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}),
            "Foreground",
            &[("MODIFIED", None, None)],
        ),
    ];
    for (path, name, object, propagation, expected) in rows {
        let (code, made) = server.json("POST", path, object.clone()).await;
        assert_eq!(code, 201, "{made}");
        let (_, list) = server.get(path).await;
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let (code, answer) = server
            .json(
                "DELETE",
                &format!("{path}/{name}"),
                json!({"propagationPolicy": propagation}),
            )
            .await;
        assert_eq!(code, 200, "{answer}");
        let (_, text) = server
            .get(&format!(
                "{path}?watch=1&timeoutSeconds=1&resourceVersion={from}&fieldSelector=metadata.name%3D{name}"
            ))
            .await;
        let text = match &text {
            Value::String(lines) => lines.clone(),
            one => one.to_string(),
        };
        let seen: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|event: &Value| {
                // The scheduler may say meanwhile that there is no node for the pod.
                event["type"] == "DELETED"
                    || !event["object"]["metadata"]["deletionTimestamp"].is_null()
            })
            .collect();
        let told: Vec<(&str, Option<i64>, Option<i64>)> = seen
            .iter()
            .take(expected.len())
            .map(|event| {
                let metadata = &event["object"]["metadata"];
                (
                    event["type"].as_str().unwrap(),
                    metadata["generation"].as_i64(),
                    metadata["deletionGracePeriodSeconds"].as_i64(),
                )
            })
            .collect();
        assert_eq!(&told, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_has_a_service_of_its_own() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/services/kubernetes";
    let mut found = server.get(path).await;
    for _ in 0..100 {
        if found.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = server.get(path).await;
    }
    let (code, service) = found;
    assert_eq!(
        (code, &service["spec"]["clusterIP"]),
        (200, &json!("10.96.0.1")),
        "{service}"
    );
    assert_eq!(service["spec"]["ports"][0]["targetPort"], json!(6443));
    let taken = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
    let (code, refused) = server
        .json("POST", "/api/v1/namespaces/default/services", taken)
        .await;
    assert_eq!(code, 422, "{refused}");
    // What is there already can be written as it is: the first objects are such as the API would have made.
    let (code, written) = server.json("PUT", path, service.clone()).await;
    assert_eq!(code, 200, "{written}");
    assert_eq!(written["spec"], service["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_tells_callers_to_come_again() {
    let bytes = QueueLimits {
        bytes: 20 << 10,
        ..QueueLimits::default()
    };
    let proposals = QueueLimits {
        proposals: 2,
        ..QueueLimits::default()
    };
    for limits in [bytes, proposals] {
        let server = server_with(Setup::queueing(limits)).await;
        check_full(&server, "alone").await;
    }
    // A follower's clients: the leader's queue is full, or the follower's own way to the leader.
    for leads_narrow in [true, false] {
        for limits in [bytes, proposals] {
            let setup = |narrow: bool| match narrow {
                true => Setup::queueing(limits),
                false => Setup::default(),
            };
            let setups = [leads_narrow, !leads_narrow, !leads_narrow].map(setup);
            let servers = cluster_of(setups.into()).await;
            lead(&servers, 0).await;
            let which = format!("the leader is narrow: {leads_narrow}, {limits:?}");
            check_full(&servers[1], &which).await;
        }
    }
}

/// Leadership moves to one of the servers, wherever it is.
async fn lead(servers: &[Server], index: usize) {
    let id = servers[index].core().status().id;
    for _ in 0..400 {
        let status = servers[index].core().status();
        if status.leader.as_deref() == Some(servers[index].core().name()) {
            return;
        }
        let leads = servers
            .iter()
            .find(|server| server.core().node().status().leads());
        if let Some(leader) = leads {
            // Refused while it is not there yet: it is asked again.
            let _ = leader.core().node().transfer_leadership(Some(id)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} does not lead", servers[index].core().name());
}

/// Of many that write at once through a server, some are told to come again, and what they asked for is not done; the others have it.
async fn check_full(server: &Server, which: &str) {
    const WRITERS: usize = 128;
    let create = |number: usize| async move {
        let name = format!("map-{number}");
        let body = map(&name, &"x".repeat(8 << 10)).to_string();
        let answer = server.exchange("POST", MAPS, "application/json", body);
        (name, answer.await)
    };
    let answers = futures::future::join_all((0..WRITERS).map(create)).await;
    let (mut taken, mut refused) = (0, 0);
    for (name, (code, headers, body)) in answers {
        let (there, _) = server.get(&format!("{MAPS}/{name}")).await;
        match code {
            201 => {
                assert_eq!(there, 200, "{name}");
                taken += 1;
            }
            429 => {
                assert_eq!(there, 404, "{name} was refused: {body}");
                assert_eq!(headers["retry-after"], "1");
                assert_eq!(body["reason"], "TooManyRequests", "{body}");
                refused += 1;
            }
            _ => panic!("{code}: {body}"),
        }
    }
    println!("{which}: {taken} taken, {refused} refused");
    assert!(
        taken > 0 && refused > 0,
        "{which}: {taken} taken, {refused} refused"
    );
    // It drains: the next one is taken.
    let (_, (code, _, body)) = create(WRITERS).await;
    assert_eq!(code, 201, "{which}: {body}");
}
