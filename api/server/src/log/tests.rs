//! The service as a client sees it, over servers without sockets.

use super::proto::log_client::LogClient;
use super::proto::log_server::LogServer;
use super::proto::{DeleteRequest, GetRequest, PutRequest};
use super::{KEY_BYTES_MAX, Log, VALUE_BYTES_MAX};
use crate::core::Core;
use crate::http::tests::{cluster, server};
use crate::http::{Caller, ClientCertificate};
use bytes::Bytes;
use eventstore::{Actor, Intent};
use std::sync::Arc;
use tonic::{Code, Request};

type Client = LogClient<LogServer<Log>>;

fn client(core: &Core) -> Client {
    LogClient::new(Log::new(core.clone()).service())
        .max_decoding_message_size(VALUE_BYTES_MAX + 1_024)
}

/// As the listener hands it on: `group` is the certificate's; without one there is no certificate.
fn by<T>(group: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let certificate = group.map(|group| {
        Arc::new(ClientCertificate {
            common_name: "ann".into(),
            organizations: vec![group.into()],
        })
    });
    let caller = Caller::new(([127, 0, 0, 1], 1).into(), certificate);
    request.extensions_mut().insert(caller);
    request
}

fn asks<T>(message: T) -> Request<T> {
    by(Some("system:masters"), message)
}

fn put(key: &str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
    }
}

async fn get(client: &mut Client, key: &str) -> Result<(Bytes, u64), Code> {
    let answer = client.get(asks(GetRequest { key: key.into() })).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok((answer.value, answer.revision))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_got_until_it_is_deleted() {
    let server = server().await;
    let mut client = client(server.core());
    let all_bytes: Vec<u8> = (0..=255).collect();
    let longest = "k".repeat(KEY_BYTES_MAX);
    for (key, value) in [
        ("a", Bytes::from_static(b"1")),
        ("a", Bytes::from_static(b"2")),
        ("a", Bytes::new()),
        ("not json", Bytes::from_static(br#"","x":{"#)),
        ("with/slashes and spaces \u{1F9ED}", all_bytes.into()),
        (longest.as_str(), vec![0; VALUE_BYTES_MAX].into()),
    ] {
        let answer = client.put(asks(put(key, value.clone()))).await.unwrap();
        let revision = answer.into_inner().revision;
        assert_eq!(get(&mut client, key).await, Ok((value, revision)), "{key}");
    }
    let delete = |key: &str| asks(DeleteRequest { key: key.into() });
    let deleted = client.delete(delete("a")).await.unwrap().into_inner();
    assert!(deleted.revision > 0);
    assert_eq!(get(&mut client, "a").await, Err(Code::NotFound));
    let again = client.delete(delete("a")).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert!(again.metadata().contains_key("audit-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_is_an_event_that_says_who_and_what() {
    let server = server().await;
    let mut client = client(server.core());
    for (value, intent, before) in [("1", Intent::Create, false), ("2", Intent::Update, true)] {
        let answer = client.put(asks(put("who", value))).await.unwrap();
        let revision = answer.into_inner().revision;
        let event = server.core().store().event_at(revision).unwrap().unwrap();
        let Actor::User { user, groups, .. } = &event.envelope.actor else {
            panic!("{:?}", event.envelope.actor);
        };
        assert_eq!(&**user, "ann");
        assert!(groups.iter().any(|group| &**group == "system:masters"));
        assert_eq!(event.envelope.intent, intent);
        let change = &event.envelope.happened.changes()[0];
        assert_eq!(change.before > 0, before);
        assert!(change.key.hidden() && change.hash.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_and_nothing_is_done() {
    let server = server().await;
    let mut client = client(server.core());
    let before = server.core().view().last_change(super::RESOURCE);
    let too_long = "k".repeat(KEY_BYTES_MAX + 1);
    // certificate's group, key, bytes of the value, code
    for (group, key, bytes, code) in [
        (None, "a", 1, Code::Unauthenticated),
        (Some("team"), "a", 1, Code::PermissionDenied),
        (Some("system:nodes"), "a", 1, Code::PermissionDenied),
        (Some("system:masters"), "", 1, Code::InvalidArgument),
        (Some("system:masters"), "a\0b", 1, Code::InvalidArgument),
        (
            Some("system:masters"),
            too_long.as_str(),
            1,
            Code::InvalidArgument,
        ),
        (
            Some("system:masters"),
            "a",
            VALUE_BYTES_MAX + 1,
            Code::InvalidArgument,
        ),
        (
            Some("system:masters"),
            "a",
            VALUE_BYTES_MAX * 2,
            Code::OutOfRange,
        ),
    ] {
        let refused = client.put(by(group, put(key, vec![7; bytes]))).await;
        assert_eq!(
            refused.unwrap_err().code(),
            code,
            "{group:?} {key:?} {bytes}"
        );
    }
    let refused = client.get(by(None, GetRequest { key: "a".into() })).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let refused = client.delete(by(None, DeleteRequest { key: "a".into() }));
    assert_eq!(refused.await.unwrap_err().code(), Code::Unauthenticated);
    let mut stands_in = asks(put("a", "1"));
    let name = "ann".parse().unwrap();
    stands_in.metadata_mut().insert("impersonate-user", name);
    let refused = client.put(stands_in).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(server.core().view().last_change(super::RESOURCE), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_takes_it_and_every_other_has_it() {
    let servers = cluster(3).await;
    for (number, wrote) in servers.iter().enumerate() {
        let key = format!("by-{number}");
        let mut writer = client(wrote.core());
        let answer = writer.put(asks(put(&key, "there"))).await.unwrap();
        let revision = answer.into_inner().revision;
        for reads in &servers {
            let found = get(&mut client(reads.core()), &key).await;
            assert_eq!(found, Ok((Bytes::from_static(b"there"), revision)), "{key}");
        }
    }
    let followers = servers.iter().filter(|server| {
        let status = server.core().node().status();
        !status.leads()
    });
    assert_eq!(followers.count(), 2);
}
