//! Asks one probe once: HTTP, TCP or a command in the container. Life-cycle hooks are the same requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Target;
use crate::pod::{Exec, Hook, HttpGet, Probe, TcpSocket};

/// As much of a failed command's output as an event shows.
const MOST_OUTPUT: usize = 1024;

/// One answer, with what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub ok: bool,
    pub message: String,
}

impl Answer {
    fn ok() -> Self {
        Answer {
            ok: true,
            message: String::new(),
        }
    }

    fn no(message: impl Into<String>) -> Self {
        Answer {
            ok: false,
            message: message.into(),
        }
    }

    pub(super) fn complaint(&self, word: &str) -> Option<String> {
        (!self.ok).then(|| format!("{word} probe failed: {}", self.message))
    }
}

pub(super) async fn ask(target: &Target, probe: &Probe) -> Answer {
    let patience = Duration::from_secs(u64::from(probe.timeout_seconds.unwrap_or(1).max(1)));
    if let Some(exec) = &probe.exec {
        return command(target, exec, patience).await;
    }
    let asked = async {
        match (&probe.http_get, &probe.tcp_socket) {
            (Some(get), _) => http_get(target, get).await,
            (None, Some(socket)) => tcp(target, socket).await,
            (None, None) => Answer::ok(),
        }
    };
    timeout(patience, asked).await.unwrap_or_else(|_| {
        Answer::no("context deadline exceeded (timeout while awaiting an answer)")
    })
}

/// Runs a postStart or preStop hook within `patience`.
pub async fn run_hook(target: &Target, hook: &Hook, patience: Duration) -> Answer {
    if let Some(exec) = &hook.exec {
        return command(target, exec, patience).await;
    }
    let asked = async {
        if let Some(get) = &hook.http_get {
            return http_get(target, get).await;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds)).await;
        }
        Answer::ok()
    };
    timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Answer::no(format!("not done in {patience:?}")))
}

async fn command(target: &Target, exec: &Exec, patience: Duration) -> Answer {
    let run = target
        .runtime
        .exec(&target.container_id, &exec.command, patience);
    match timeout(patience + Duration::from_secs(1), run).await {
        Err(_) => Answer::no(format!("command timed out after {patience:?}")),
        Ok(Err(error)) => Answer::no(error.to_string()),
        Ok(Ok(output)) if output.exit_code == 0 => Answer::ok(),
        Ok(Ok(output)) => {
            let mut text = output.stdout;
            text.extend(output.stderr);
            text.truncate(MOST_OUTPUT);
            Answer::no(String::from_utf8_lossy(&text).into_owned())
        }
    }
}

async fn connect(host: &str, port: Option<u16>) -> Result<TcpStream, String> {
    let port = port.ok_or_else(|| "the container has no port of that name".to_owned())?;
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn tcp(target: &Target, socket: &TcpSocket) -> Answer {
    let host = if socket.host.is_empty() {
        &target.ip
    } else {
        &socket.host
    };
    match connect(host, socket.port.resolve(&target.spec)).await {
        Ok(_) => Answer::ok(),
        Err(message) => Answer::no(message),
    }
}

async fn http_get(target: &Target, get: &HttpGet) -> Answer {
    let host = if get.host.is_empty() {
        &target.ip
    } else {
        &get.host
    };
    let port = get.port.resolve(&target.spec);
    let stream = match connect(host, port).await {
        Ok(stream) => stream,
        Err(message) => return Answer::no(message),
    };
    let authority = format!("{host}:{}", port.unwrap_or_default());
    let asked = if get.scheme.eq_ignore_ascii_case("https") {
        match encrypted(stream, host).await {
            Ok(stream) => status_of(stream, get, &authority).await,
            Err(error) => Err(error.to_string()),
        }
    } else {
        status_of(stream, get, &authority).await
    };
    match asked {
        Ok(code) if (200..400).contains(&code) => Answer::ok(),
        Ok(code) => Answer::no(format!("HTTP probe failed with statuscode: {code}")),
        Err(message) => Answer::no(message),
    }
}

async fn status_of<S>(stream: S, get: &HttpGet, authority: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let path = if get.path.starts_with('/') {
        get.path.clone()
    } else {
        format!("/{}", get.path)
    };
    let mut request = Request::get(path)
        .header("user-agent", "kube-probe/1.37")
        .header("accept", "*/*");
    if !get
        .http_headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request = request.header("host", authority);
    }
    for header in &get.http_headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let asked = sender.send_request(request);
    tokio::pin!(connection, asked);
    let response = tokio::select! {
        response = &mut asked => response,
        // The connection's end without a response reaches the request as an error.
        _ = &mut connection => asked.await,
    };
    response
        .map(|response| response.status().as_u16())
        .map_err(|error| error.to_string())
}

async fn encrypted(
    stream: TcpStream,
    host: &str,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Kubernetes: an HTTPS probe does not verify the certificate. It carries nothing that is secret.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
