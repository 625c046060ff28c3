//! The OCI distribution protocol, reading side, over HTTP/1.1.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

use super::auth::Auth;
use super::fault::{Armed, Fault, LARGE, Target};
use crate::image::Content;

type Reply = Response<BoxBody<Bytes, std::io::Error>>;

/// One request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub status: u16,
}

#[derive(Debug)]
struct State {
    content: Content,
    auth: Auth,
    faults: Vec<Armed>,
    seen: Vec<Seen>,
}

/// A running registry; it ends with this handle.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Serves `content` on `listener`, which may stand in any network namespace.
    pub fn start(listener: TcpListener, content: Content) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("address of the registry")?;
        listener
            .set_nonblocking(true)
            .context("make the registry's listener asynchronous")?;
        let state = State {
            content,
            auth: Auth::Open,
            faults: Vec::new(),
            seen: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the registry's runtime")?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, &shared) => {}
                }
            });
        });
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// `host:port`, as it stands in names of images that are asked of it directly.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Spoils the next `times` answers of a kind.
    pub fn fail(&self, target: Target, fault: Fault, times: u32) {
        lock(&self.state).faults.push(Armed {
            target,
            fault,
            times,
        });
    }

    /// No more faults.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    pub fn set_auth(&self, auth: Auth) {
        lock(&self.state).auth = auth;
    }

    /// Adds to what is served.
    pub fn push(&self, content: Content) {
        lock(&self.state).content.merge(content);
    }

    /// Takes the list of the requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.state).seen)
    }

    /// A copy of what is served.
    pub fn content(&self) -> Content {
        lock(&self.state).content.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: &Arc<Mutex<State>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let reply = answer(&mut lock(&state), &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            // An error here is the client's, or a fault of our own making.
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

fn answer(state: &mut State, request: &Request<Incoming>) -> Reply {
    let text = |name: HeaderName| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned)
    };
    let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
    let host = text(header::HOST).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let found = look_up(state, &path, authorization.as_deref(), &host);
    let reply = found.reply(request.method(), range.as_deref());
    state.seen.push(Seen {
        method: request.method().to_string(),
        path,
        range,
        authorization,
        status: reply.status().as_u16(),
    });
    reply
}

/// What will be sent.
struct Found {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    cut: Option<usize>,
    stall: Option<usize>,
}

impl Found {
    fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
            cut: None,
            stall: None,
        }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    fn missing() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            r#"{"errors":[{"code":"NOT_FOUND"}]}"#,
        )
    }

    fn spoil(mut self, fault: Option<&Fault>) -> Self {
        match fault {
            None => self,
            Some(Fault::Status(code)) => {
                let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, Bytes::new())
            }
            Some(Fault::Busy(seconds)) => Self::new(StatusCode::TOO_MANY_REQUESTS, Bytes::new())
                .with(header::RETRY_AFTER, &seconds.to_string()),
            Some(Fault::Redirect(to)) => {
                Self::new(StatusCode::TEMPORARY_REDIRECT, Bytes::new()).with(header::LOCATION, to)
            }
            Some(Fault::Challenge(text)) => {
                Self::new(StatusCode::UNAUTHORIZED, "{}").with(header::WWW_AUTHENTICATE, text)
            }
            Some(Fault::Type(media)) => self.with(header::CONTENT_TYPE, media),
            Some(Fault::Garbage) => {
                self.body = Bytes::from_static(b"<html>this is not what you asked for</html>");
                self
            }
            Some(Fault::Flipped) => {
                let mut bytes = self.body.to_vec();
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
                self.body = bytes.into();
                self
            }
            Some(Fault::CutAfter(count)) => {
                self.cut = Some(*count);
                self
            }
            Some(Fault::StallAfter(count)) => {
                self.stall = Some(*count);
                self
            }
        }
    }

    fn reply(mut self, method: &Method, range: Option<&str>) -> Reply {
        let total = self.body.len();
        if let Some(start) = range
            .filter(|_| self.status == StatusCode::OK)
            .and_then(range_start)
        {
            if start >= total {
                self.status = StatusCode::RANGE_NOT_SATISFIABLE;
                self.body = Bytes::new();
            } else {
                self.status = StatusCode::PARTIAL_CONTENT;
                self.body = self.body.slice(start..);
                self = self.with(
                    header::CONTENT_RANGE,
                    &format!("bytes {start}-{}/{total}", total - 1),
                );
            }
        }
        let length = self.body.len();
        let body = match (self.cut, self.stall) {
            _ if method == Method::HEAD => full(Bytes::new()),
            (Some(cut), _) => broken(self.body.slice(..cut.min(length))),
            (None, Some(stall)) => stalled(self.body.slice(..stall.min(length))),
            (None, None) => full(self.body),
        };
        let mut reply = Response::new(body);
        *reply.status_mut() = self.status;
        *reply.headers_mut() = self.headers;
        reply
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        reply
    }
}

/// Start of a range that goes on to the end.
fn range_start(range: &str) -> Option<usize> {
    range
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}

fn full(bytes: Bytes) -> BoxBody<Bytes, std::io::Error> {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// Ends with an error, which closes the connection before all was sent.
fn broken(bytes: Bytes) -> BoxBody<Bytes, std::io::Error> {
    let cut = std::io::Error::other("cut as the test asked");
    let parts = tokio_stream::iter([Ok(Frame::data(bytes)), Err(cut)]).then(async |part| {
        if part.is_err() {
            // What came before must be on its way.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        part
    });
    StreamBody::new(parts).boxed()
}

/// Never ends.
fn stalled(bytes: Bytes) -> BoxBody<Bytes, std::io::Error> {
    let parts = tokio_stream::iter([Ok(Frame::data(bytes))]).chain(tokio_stream::pending());
    StreamBody::new(parts).boxed()
}

fn look_up(state: &mut State, path: &str, authorization: Option<&str>, host: &str) -> Found {
    if path == "/token" {
        let found = match state.auth.token(authorization) {
            Some(token) => Found::new(StatusCode::OK, token),
            None => Found::new(StatusCode::UNAUTHORIZED, "{}"),
        };
        return found.spoil(Armed::take(&mut state.faults, Target::Token).as_ref());
    }
    if !state.auth.admits(authorization) {
        let refusal = Found::new(StatusCode::UNAUTHORIZED, "{}");
        return match state.auth.challenge(host) {
            Some(challenge) => refusal.with(header::WWW_AUTHENTICATE, &challenge),
            None => refusal,
        };
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Found::missing();
    };
    if rest.is_empty() {
        return Found::new(StatusCode::OK, "{}");
    }
    if let Some((repository, reference)) = rest.split_once("/manifests/") {
        let found = manifest(&state.content, repository, reference);
        return found.spoil(Armed::take(&mut state.faults, Target::Manifest).as_ref());
    }
    if let Some((_, digest)) = rest.split_once("/blobs/") {
        let found = state
            .content
            .blobs
            .get(digest)
            .map_or_else(Found::missing, |data| {
                Found::new(StatusCode::OK, data.clone())
                    .with(header::CONTENT_TYPE, "application/octet-stream")
            });
        let large = (found.body.len() >= LARGE)
            .then(|| Armed::take(&mut state.faults, Target::LargeBlob))
            .flatten();
        let fault = large.or_else(|| Armed::take(&mut state.faults, Target::Blob));
        return found.spoil(fault.as_ref());
    }
    Found::missing()
}

fn manifest(content: &Content, repository: &str, reference: &str) -> Found {
    let name = if reference.starts_with("sha256:") {
        reference.to_owned()
    } else {
        format!("{repository}:{reference}")
    };
    let Some(manifest) = content.manifests.get(&name) else {
        return Found::missing();
    };
    let digest_header = HeaderName::from_static("docker-content-digest");
    content
        .blobs
        .get(&manifest.digest)
        .map_or_else(Found::missing, |data| {
            Found::new(StatusCode::OK, data.clone())
                .with(header::CONTENT_TYPE, &manifest.media_type)
                .with(digest_header, &manifest.digest)
        })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::{Auth, Fault, Registry, Target};
    use crate::image::{Content, ImageBuilder, Layer};

    fn registry() -> Registry {
        let mut content = Content::default();
        let layer = Layer::new().file("a", b"text", 0o644);
        ImageBuilder::new()
            .layer(layer)
            .push(&mut content, &["some/image:1"]);
        Registry::start(TcpListener::bind("127.0.0.1:0").unwrap(), content).unwrap()
    }

    fn get(registry: &Registry, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(registry.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok();
        reply
    }

    const MANIFEST: &str = "/v2/some/image/manifests/1";

    #[test]
    fn serves_a_manifest_by_tag_and_parts_of_it() {
        let registry = registry();
        let whole = get(&registry, MANIFEST, "");
        assert!(whole.starts_with("HTTP/1.1 200"), "{whole}");
        assert!(whole.contains("docker-content-digest: sha256:"));
        let part = get(&registry, MANIFEST, "Range: bytes=10-\r\n");
        assert!(part.starts_with("HTTP/1.1 206"), "{part}");
        assert!(get(&registry, "/v2/some/image/manifests/2", "").starts_with("HTTP/1.1 404"));
        assert_eq!(registry.take_seen().len(), 3);
    }

    #[test]
    fn a_fault_happens_as_often_as_asked() {
        let registry = registry();
        registry.fail(Target::Manifest, Fault::Status(500), 1);
        assert!(get(&registry, MANIFEST, "").starts_with("HTTP/1.1 500"));
        registry.fail(Target::Manifest, Fault::CutAfter(7), 1);
        let cut = get(&registry, MANIFEST, "");
        assert_eq!(cut.split("\r\n\r\n").nth(1).unwrap().len(), 7, "{cut}");
        assert!(get(&registry, MANIFEST, "").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn a_token_opens_what_a_password_guards() {
        let registry = registry();
        registry.set_auth(Auth::bearer("u", "p"));
        let refusal = get(&registry, MANIFEST, "");
        assert!(
            refusal.contains("401") && refusal.contains("/token"),
            "{refusal}"
        );
        assert!(get(&registry, "/token", "").contains("401"));
        let token = get(&registry, "/token", "Authorization: Basic dTpw\r\n");
        let token = token.split('"').nth(3).unwrap();
        let header = format!("Authorization: Bearer {token}\r\n");
        assert!(get(&registry, MANIFEST, &header).contains("HTTP/1.1 200"));
    }
}
