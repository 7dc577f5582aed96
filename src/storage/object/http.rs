//! The HTTP client below `object_store`: time-outs that watch progress, no redirects, whole bodies, and answers
//! that are not success as typed errors with what the server said.
//!
//! Every answer is read here to its end, so that `object_store` above sees complete bodies or an error, and has
//! nothing to try again: trying again is the business of [`RetryStore`](crate::storage::retry::RetryStore) alone.

use super::trouble::{Answer, Trouble};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A payload goes out in pieces of this length; a piece that does not leave for the silence allowed is a stall.
const PIECE: usize = 64 * 1024;

/// What may have left us and still wait in the kernel's buffers, and how fast a line is at least, in bytes a
/// second: so much longer may an upload show no progress.
const BUFFERED: u64 = 4 * 1024 * 1024;
const SLOWEST: u64 = 64 * 1024;

/// No page of a listing and no error document is longer.
const LONGEST_OTHER_BODY: u64 = 16 * 1024 * 1024;

/// No error document of interest is longer.
const LONGEST_REFUSAL: u64 = 64 * 1024;

/// How long a connection may take to come about, name look-up and TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Unused connections are closed before servers and firewalls do it.
const IDLE: Duration = Duration::from_secs(10);

/// What a download may be long at most; travels with the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub u64);

/// The payload of an upload; travels with the request, so that its progress can be watched without copying it.
#[derive(Clone)]
pub(super) struct Upload(pub Bytes);

/// How servers are believed to be who they say they are.
pub(super) enum Trust {
    /// TLS is not used.
    NoTls,
    /// Whoever signs is believed. Only on the operator's word.
    Anybody,
    /// The certificates of the operating system.
    System,
    /// These, in PEM, and no others.
    Only(Vec<u8>),
    /// These, in PEM, and those of the operating system: the store is private, its credentials come from a cloud.
    Also(Vec<u8>),
}

/// What a client is made of.
pub(super) struct ClientSettings {
    pub trust: Trust,
    /// How long the other side may be silent.
    pub silence: Duration,
    /// Connections to this host go to this address.
    pub pinned: Option<(String, IpAddr)>,
}

/// Makes the one client of a store.
pub(super) fn client(settings: ClientSettings) -> Result<Connector, Trouble> {
    let certificates = |pem: &[u8]| {
        let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
            Trouble::configuration(format!("the CA file cannot be used: {}", deepest(&error)))
        })?;
        match found.is_empty() {
            true => Err(Trouble::configuration("the CA file holds no certificate in PEM form".to_owned())),
            false => Ok(found),
        }
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("walden/", env!("CARGO_PKG_VERSION")))
        // A signed request is for the server it was made for.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .connect_timeout(CONNECT.min(settings.silence))
        .pool_idle_timeout(IDLE);
    builder = match settings.trust {
        // Reading the system's certificates costs milliseconds that a push over plain HTTP need not pay.
        Trust::NoTls => builder.tls_certs_only([]),
        Trust::Anybody => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
        Trust::System => builder,
        Trust::Only(pem) => builder.tls_certs_only(certificates(&pem)?),
        Trust::Also(pem) => builder.tls_certs_merge(certificates(&pem)?),
    };
    if let Some((host, address)) = settings.pinned {
        builder = builder.resolve(&host, SocketAddr::new(address, 0));
    }
    let client = builder
        .build()
        .map_err(|error| Trouble::configuration(format!("TLS cannot be set up: {}", deepest(&error))))?;
    Ok(Connector(HttpClient::new(Client { client, silence: settings.silence })))
}

/// Gives every part of `object_store` the same client.
#[derive(Clone, Debug)]
pub(super) struct Connector(HttpClient);

impl Connector {
    /// For what `object_store` has no call for.
    pub(super) fn client(&self) -> HttpClient {
        self.0.clone()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    silence: Duration,
}

impl HttpService for Client {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> BoxFuture<'async_trait, Result<HttpResponse, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            // `Unknown` is the kind that object_store never tries again.
            self.exchange(request).await.map_err(|trouble| HttpError::new(HttpErrorKind::Unknown, trouble))
        })
    }
}

impl Client {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Trouble> {
        let (parts, body) = request.into_parts();
        let url: reqwest::Url = parts
            .uri
            .to_string()
            .parse()
            .map_err(|_| Trouble::configuration("the endpoint is not a URL".to_owned()))?;
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let limit = parts.extensions.get::<Limit>().map_or(LONGEST_OTHER_BODY, |limit| limit.0);
        let head = parts.method == reqwest::Method::HEAD;
        let mut out = reqwest::Request::new(parts.method, url);
        *out.headers_mut() = parts.headers;
        let sent = Arc::new(AtomicU64::new(0));
        let mut patience = self.silence;
        *out.body_mut() = Some(match parts.extensions.get::<Upload>() {
            Some(Upload(bytes)) => {
                patience += Duration::from_secs((bytes.len() as u64).min(BUFFERED) / SLOWEST);
                watched(bytes.clone(), Arc::clone(&sent))
            }
            None => match body.as_bytes() {
                Some(bytes) => bytes.clone().into(),
                None => reqwest::Body::wrap(body),
            },
        });

        let mut response = unless_stalled(patience, &sent, self.client.execute(out))
            .await
            .ok_or_else(|| Trouble::silent(&host, patience))?
            .map_err(|error| Trouble::no_answer(&host, &error))?;
        let status = response.status();
        let length = response.content_length();
        let limit = if status.is_success() { limit } else { LONGEST_REFUSAL };
        let mut contents = Vec::new();
        if !head {
            if status.is_success() {
                if let Some(length) = length.filter(|length| *length > limit) {
                    return Err(Trouble::TooLarge { size: length, limit });
                }
                contents.reserve_exact(usize::try_from(length.unwrap_or(0)).unwrap_or(0));
            }
            loop {
                let piece = tokio::time::timeout(self.silence, response.chunk())
                    .await
                    .map_err(|_| Trouble::silent(&host, self.silence))?;
                match piece {
                    Ok(None) => break,
                    Ok(Some(piece)) if contents.len() as u64 + piece.len() as u64 <= limit => {
                        contents.extend_from_slice(&piece);
                    }
                    Ok(Some(_)) if status.is_success() => {
                        return Err(Trouble::TooLarge { size: limit + 1, limit });
                    }
                    // What is known of a refusal by now must do.
                    Ok(Some(_)) => break,
                    Err(_) if !status.is_success() => break,
                    Err(error) => return Err(Trouble::no_answer(&host, &error)),
                }
            }
        }
        if !status.is_success() {
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            return Err(Trouble::Refused(Box::new(Answer::read(host, status.as_u16(), header, &contents))));
        }
        let mut answer = HttpResponse::new(Bytes::from(contents).into());
        *answer.status_mut() = status;
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }
}

/// What comes of `work`; `None` when it neither ended nor sent anything for as long as `patience`.
async fn unless_stalled<T>(patience: Duration, sent: &AtomicU64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut seen = sent.load(Ordering::Relaxed);
    loop {
        if let Ok(done) = tokio::time::timeout(patience, work.as_mut()).await {
            return Some(done);
        }
        let now = sent.load(Ordering::Relaxed);
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// `bytes` as a body that counts in `sent` the pieces that were asked for.
fn watched(bytes: Bytes, sent: Arc<AtomicU64>) -> reqwest::Body {
    if bytes.is_empty() {
        return bytes.into();
    }
    let pieces = bytes.len().div_ceil(PIECE);
    let cut = move |piece: usize| {
        sent.fetch_add(1, Ordering::Relaxed);
        let from = piece * PIECE;
        Ok::<_, std::convert::Infallible>(bytes.slice(from..bytes.len().min(from + PIECE)))
    };
    reqwest::Body::wrap_stream(futures_util::stream::iter((0..pieces).map(cut)))
}

/// The innermost cause's words.
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
