//! Who is let in, and what those are told who are not.

use crate::authority::SERVERS_GROUP;
use crate::config::Joined;
use crate::http::tests::{Place, Server, start};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use seams::MemoryHub;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const MEMBERS: &str = "/reckon/v1/members";
const JOIN: &str = "/reckon/v1/join";

/// A request for a certificate, for a key of its own.
fn request() -> String {
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap());
    request.unwrap().pem().unwrap()
}

/// The only server of a cluster, which signs.
async fn signing(folder: &std::path::Path) -> (Server, MemoryHub, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let key_file = folder.join("ca.key");
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let hub = MemoryHub::default();
    let place = Place {
        authority: (ca_pem.clone(), Some(key_file)),
        ..Place::first("server-1", &["server-1"], &hub)
    };
    let server = start(place).await;
    server.founded().await;
    (server, hub, ca_pem)
}

async fn add(server: &Server, name: &str, ttl_s: u64) -> Value {
    let asked = json!({"name": name, "address": format!("{name}:6443"), "ttlSeconds": ttl_s});
    let (code, added) = server.json("POST", MEMBERS, asked).await;
    assert_eq!(code, 201, "{added}");
    added
}

async fn remove(server: &Server, name: &str) {
    let path = format!("{MEMBERS}/{name}/remove");
    let (code, removed) = server.json("POST", &path, json!({})).await;
    assert_eq!(code, 200, "{removed}");
}

#[track_caller]
fn refused((code, answer): (u16, Value), says: &str) {
    assert_eq!((code, &answer["message"]), (403, &json!(says)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_one_key_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _hub, _) = signing(folder.path()).await;
    let join = async |body: Value| server.post_as(None, JOIN, body).await;
    let added = add(&server, "server-2", 60).await;
    let token = &added["token"];
    let (first, second) = (request(), request());

    let wrong = token.as_str().unwrap().replacen("2.", "2.0", 1);
    for (body, says) in [
        (
            json!({}),
            "to join takes a token of 'reckon member add', or a certificate with O=system:reckon:servers",
        ),
        (
            json!({"token": "no"}),
            "this is no token of 'reckon member add'",
        ),
        (
            json!({"token": wrong, "certificateRequest": first}),
            "the token is not, or no longer, good: 'reckon member list' shows who is invited",
        ),
    ] {
        refused(join(body).await, says);
    }
    // The answer may be lost: the same key asks again.
    for _ in 0..2 {
        let (code, place) = join(json!({"token": token, "certificateRequest": first})).await;
        assert_eq!((code, &place["id"]), (200, &json!(2)), "{place}");
        let certificate = place["certificate"].as_str().unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    for body in [
        json!({"token": token, "certificateRequest": second}),
        json!({"token": token}),
    ] {
        refused(
            join(body).await,
            "server-2 has joined already with another key: 'reckon member remove server-2', and add it again",
        );
    }

    let late = add(&server, "server-3", 1).await;
    sleep(Duration::from_millis(1_500)).await;
    refused(
        join(json!({"token": late["token"], "certificateRequest": second})).await,
        "the token of server-3 has expired: 'reckon member remove server-3', and add it again",
    );
    // What they are told to do lets them in, under ids of their own.
    for (name, id) in [("server-2", 4), ("server-3", 5)] {
        remove(&server, name).await;
        let added = add(&server, name, 60).await;
        let (code, place) =
            join(json!({"token": added["token"], "certificateRequest": second})).await;
        assert_eq!((code, &place["id"]), (200, &json!(id)), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_joins_when_it_is_invited_and_with_one_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (server, hub, ca_pem) = signing(folder.path()).await;
    let join = async |name: &str, organization: &str| {
        let who = Some((name, organization));
        server.post_as(who, JOIN, json!({})).await
    };
    refused(
        join("server-2", SERVERS_GROUP).await,
        "server-2 is not invited: 'reckon member add server-2 HOST:PORT' first",
    );
    refused(
        join("server-2", "system:masters").await,
        "to join takes a token of 'reckon member add', or a certificate with O=system:reckon:servers",
    );
    refused(
        join("server-1", SERVERS_GROUP).await,
        "server-1 is member 1 already, with another disk: send it away with 'reckon member remove server-1', and take it in again \
         with 'reckon member add server-1 server-1:6443'",
    );

    add(&server, "server-2", 60).await;
    let mut id = 2;
    for again in [false, true] {
        let (code, place) = join("server-2", SERVERS_GROUP).await;
        assert_eq!((code, &place["id"]), (200, &json!(id)), "{place}");
        if again {
            break;
        }
        let joined = Joined {
            id,
            cluster: place["cluster"].as_str().unwrap().to_owned(),
        };
        let newcomer = start(Place {
            joined: Some(joined),
            authority: (ca_pem.clone(), None),
            ..Place::first("server-2", &[], &hub)
        });
        let _newcomer = newcomer.await;
        for _ in 0..400 {
            if server.core().node().knows_disk(id) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        refused(
            join("server-2", SERVERS_GROUP).await,
            "server 2 (server-2) was here before with another disk: send it away with 'reckon member remove server-2', and add it again",
        );
        remove(&server, "server-2").await;
        add(&server, "server-2", 60).await;
        id = 3;
    }
}
