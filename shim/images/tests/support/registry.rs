//! A registry in this process, on loopback, that can be told to misbehave.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

type Body = UnsyncBoxBody<Bytes, io::Error>;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Who may pull.
#[derive(Debug, Clone, Default)]
pub enum Guard {
    #[default]
    Open,
    Basic {
        user: String,
        password: String,
    },
    Bearer(TokenService),
    /// This token and no other, whatever the challenge.
    Fixed {
        token: String,
    },
}

/// What the registry says and does about tokens; its service is its own `/token`.
#[derive(Debug, Clone, Default)]
pub struct TokenService {
    /// Where clients are sent; the registry itself if `None`.
    pub realm: Option<String>,
    /// Who gets tokens; anyone if `None`.
    pub user: Option<(String, String)>,
    pub refresh_token: Option<String>,
    pub expires_in: Option<u64>,
}

/// One way to misbehave.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16, Vec<(&'static str, String)>),
    /// Other content, with its own right length.
    Content(Vec<u8>),
    /// One more header, or another value for it.
    Header(&'static str, String),
    /// Dies after that many bytes of the body it sends.
    Cut(usize),
    /// Ends as if all were well after that many bytes, with no length given.
    Short(usize),
    /// Goes on for that many bytes too many, with no length given.
    Long(usize),
    IgnoreRange,
    /// Sends one byte at a time, so far apart.
    Drip(Duration),
    /// Never answers.
    Hang,
}

#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Recorded {
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Debug, Default)]
struct State {
    guard: Guard,
    /// By path behind `/v2/`: media type and content.
    content: BTreeMap<String, (String, Bytes)>,
    /// Part of a path, what to do there, and how often still.
    faults: Vec<(String, Fault, usize)>,
    tokens: BTreeSet<String>,
    issued: usize,
    requests: Vec<Recorded>,
}

/// Lives until dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An image that was put into a registry.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

pub fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

/// A configuration that fits any machine, different for each `mark`.
pub fn config(mark: &str) -> Vec<u8> {
    let text = serde_json::json!({
        "os": "linux", "author": mark, "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    text.to_string().into_bytes()
}

impl FakeRegistry {
    pub async fn start() -> Self {
        Self::serve(|stream| async move { Ok(stream) }).await
    }

    /// With something between TCP and HTTP.
    pub async fn serve<F, Fut, S>(wrap: F) -> Self
    where
        F: Fn(tokio::net::TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, wrapped) = (Arc::clone(&shared), wrap(stream));
                tokio::spawn(async move {
                    let Ok(stream) = wrapped.await else { return };
                    let service =
                        service_fn(move |request| answer(Arc::clone(&state), address, request));
                    // Clients that hang up are part of the tests.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn guard(&self, guard: Guard) {
        self.state().guard = guard;
    }

    /// Every token given out so far is worth nothing from now on.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Misbehaves at the next `times` requests whose path has `part` in it.
    pub fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.state().faults.push((part.to_owned(), fault, times));
    }

    pub fn always(&self, part: &str, fault: Fault) {
        self.fault(part, fault, usize::MAX);
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.state().requests.clone()
    }

    pub fn requests_for(&self, part: &str) -> Vec<Recorded> {
        self.requests()
            .into_iter()
            .filter(|request| request.path.contains(part))
            .collect()
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let content = (
            "application/octet-stream".to_owned(),
            Bytes::copy_from_slice(bytes),
        );
        self.state()
            .content
            .insert(format!("{repository}/blobs/{digest}"), content);
        digest
    }

    /// Under its digest and, if there is one, a tag.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = sha256(bytes);
        let content = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
        let mut state = self.state();
        for name in tag.into_iter().chain([digest.as_str()]) {
            state
                .content
                .insert(format!("{repository}/manifests/{name}"), content.clone());
        }
        digest
    }

    pub fn put_image(
        &self,
        repository: &str,
        tag: Option<&str>,
        config: &[u8],
        layers: &[(&str, &[u8])],
    ) -> Pushed {
        let descriptors: Vec<_> = layers.iter().map(|(kind, b)| descriptor(kind, b)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config), "layers": descriptors,
        });
        let bytes = manifest.to_string().into_bytes();
        Pushed {
            config: self.put_blob(repository, config),
            layers: layers
                .iter()
                .map(|(_, bytes)| self.put_blob(repository, bytes))
                .collect(),
            manifest: self.put_manifest(repository, tag, OCI_MANIFEST, &bytes),
        }
    }
}

impl State {
    fn faults_for(&mut self, path: &str) -> Vec<Fault> {
        let mut found = Vec::new();
        for (part, fault, times) in &mut self.faults {
            if path.contains(part.as_str()) && *times > 0 {
                *times = times.saturating_sub(1);
                found.push(fault.clone());
            }
        }
        found
    }

    /// The challenge to one who may not.
    fn challenge(&self, headers: &HeaderMap, address: SocketAddr) -> Option<String> {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = shown.and_then(|value| value.strip_prefix("Bearer "));
        let (welcome, challenge) = match &self.guard {
            Guard::Open => (true, String::new()),
            Guard::Basic { user, password } => (
                shown == Some(&basic(user, password)),
                "Basic realm=\"fake\"".to_owned(),
            ),
            Guard::Bearer(service) => {
                let own = format!("http://{address}/token");
                let realm = service.realm.as_ref().unwrap_or(&own);
                let challenge = format!("Bearer realm=\"{realm}\",service=\"fake\"");
                (
                    token.is_some_and(|token| self.tokens.contains(token)),
                    challenge,
                )
            }
            Guard::Fixed { token: right } => (token == Some(right), "Bearer".to_owned()),
        };
        (!welcome).then_some(challenge)
    }

    fn issue(&mut self, request: &Recorded) -> Response<Body> {
        let Guard::Bearer(service) = self.guard.clone() else {
            return status(StatusCode::NOT_FOUND);
        };
        let by_user = match &service.user {
            Some((user, password)) => request.header(AUTHORIZATION) == Some(&basic(user, password)),
            None => service.refresh_token.is_none(),
        };
        let by_refresh = service.refresh_token.is_some_and(|token| {
            request.method == Method::POST
                && request.body.contains("grant_type=refresh_token")
                && request.body.contains(&format!("refresh_token={token}&"))
        });
        if !by_user && !by_refresh {
            return status(StatusCode::UNAUTHORIZED);
        }
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        self.tokens.insert(token.clone());
        let key = if by_refresh { "access_token" } else { "token" };
        let mut document = serde_json::json!({key: token});
        if let Some(term) = service.expires_in {
            document["expires_in"] = term.into();
        }
        plain(StatusCode::OK, document.to_string().into_bytes())
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let recorded = Recorded {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let faults;
    let response = {
        let mut state = state.lock().unwrap();
        state.requests.push(recorded.clone());
        faults = state.faults_for(&recorded.path);
        respond(&mut state, address, &recorded, &faults)
    };
    if faults.iter().any(|fault| matches!(fault, Fault::Hang)) {
        std::future::pending::<()>().await;
    }
    Ok(response)
}

fn respond(
    state: &mut State,
    address: SocketAddr,
    request: &Recorded,
    faults: &[Fault],
) -> Response<Body> {
    for fault in faults {
        if let Fault::Status(code, headers) = fault {
            let mut response = status(StatusCode::from_u16(*code).unwrap());
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            return response;
        }
    }
    if request.path == "/token" {
        return state.issue(request);
    }
    if let Some(challenge) = state.challenge(&request.headers, address) {
        let mut response = status(StatusCode::UNAUTHORIZED);
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        return response;
    }
    let key = request
        .path
        .split_once("/v2/")
        .map(|(_, key)| key.to_owned());
    match key.and_then(|key| state.content.get(&key)) {
        Some((media_type, bytes)) => content(request, media_type, bytes, faults),
        None => status(StatusCode::NOT_FOUND),
    }
}

fn content(request: &Recorded, kind: &str, bytes: &Bytes, faults: &[Fault]) -> Response<Body> {
    let mut bytes = bytes.clone();
    let (mut end, mut gap, mut range) = (None, None, true);
    for fault in faults {
        match fault {
            Fault::Content(other) => bytes = Bytes::from(other.clone()),
            Fault::IgnoreRange => range = false,
            Fault::Drip(pause) => gap = Some(*pause),
            Fault::Cut(_) | Fault::Short(_) | Fault::Long(_) => end = Some(fault),
            Fault::Status(..) | Fault::Header(..) | Fault::Hang => {}
        }
    }
    let mut response = Response::builder().header(CONTENT_TYPE, kind);
    let wish = request.header(RANGE).filter(|_| range);
    if let Some(first) = wish.and_then(|wish| wish.strip_prefix("bytes=")?.strip_suffix('-')) {
        let first: usize = first.parse().unwrap();
        if first >= bytes.len() {
            return status(StatusCode::RANGE_NOT_SATISFIABLE);
        }
        let span = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, span);
        bytes = bytes.slice(first..);
    }
    let mut frames = Vec::new();
    match end {
        Some(Fault::Short(at)) => frames.push(Ok(bytes.slice(..(*at).min(bytes.len())))),
        Some(Fault::Long(more)) => {
            frames.push(Ok(Bytes::from([&bytes[..], &vec![0; *more]].concat())));
        }
        Some(Fault::Cut(at)) if *at < bytes.len() => {
            response = response.header(CONTENT_LENGTH, bytes.len());
            frames.push(Ok(bytes.slice(..*at)));
            frames.push(Err(io::Error::other("cut")));
        }
        _ => {
            response = response.header(CONTENT_LENGTH, bytes.len());
            let slow = if gap.is_some() {
                bytes.len().min(1000)
            } else {
                0
            };
            frames.extend((0..slow).map(|at| Ok(bytes.slice(at..=at))));
            frames.push(Ok(bytes.slice(slow..)));
        }
    }
    let mut response = response
        .body(body(frames, gap.unwrap_or_default()))
        .unwrap();
    for fault in faults {
        if let Fault::Header(name, value) = fault {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
    }
    response
}

fn body(frames: Vec<io::Result<Bytes>>, gap: Duration) -> Body {
    let frames = stream::unfold(frames.into_iter(), move |mut frames| async move {
        let frame = frames.next()?;
        // An error at once would overtake the bytes before it.
        let pause = if frame.is_err() {
            Duration::from_millis(30)
        } else {
            gap
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((frame.map(Frame::data), frames))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn plain(code: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let body = body(vec![Ok(Bytes::from(bytes))], Duration::ZERO);
    Response::builder().status(code).body(body).unwrap()
}

fn status(code: StatusCode) -> Response<Body> {
    let errors = serde_json::json!({"errors": [{"code": "FAKE", "message": "as told"}]});
    plain(code, errors.to_string().into_bytes())
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A redirect, as a fault.
pub fn redirect(to: &str) -> Fault {
    Fault::Status(307, vec![("location", to.to_owned())])
}
