//! The page `/metrics`, over HTTP/1.1 on a TCP or unix socket.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Metrics, NodeView};
use crate::config::Place;
use crate::listen;

/// More than any set of scrapers has; a further connection is closed at once.
const CONNECTIONS: usize = 16;
/// For a request to come.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// For all that goes on over one connection. Scrapers open another.
const LIFE: Duration = Duration::from_secs(60);
/// Of a request's head.
const HEAD: usize = 16 << 10;
/// After an accept that failed (no descriptors, say).
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Opens the socket; None when metrics are to be served nowhere.
pub(crate) async fn bind(place: &Place) -> anyhow::Result<Option<Listener>> {
    Ok(match place {
        Place::Nowhere => None,
        Place::Unix(path) => Some(Listener::Unix(listen::bind(path)?, path.clone())),
        Place::Tcp(address) => {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "metrics can be read from other machines, without encryption");
            }
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("metrics.listen: bind {address}"))?;
            Some(Listener::Tcp(listener))
        }
    })
}

/// What the page needs.
#[derive(Debug, Clone)]
pub(crate) struct PageServer {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) node: Arc<NodeView>,
}

impl PageServer {
    pub(crate) async fn serve(self, listener: Listener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some(accepted) = stop.run_until_cancelled(accept(&listener)).await {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Without a slot the connection is dropped, which closes it.
            if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                tokio::spawn(self.clone().connection(stream, slot, stop.clone()));
            }
        }
        if let Listener::Unix(_, path) = &listener {
            drop(std::fs::remove_file(path));
        }
    }

    async fn connection(
        self,
        stream: Box<dyn Stream>,
        slot: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        let answer = service_fn(|request| self.answer(request));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), answer);
        let bounded = tokio::time::timeout(LIFE, served);
        if let Some(Ok(Err(error))) = stop.run_until_cancelled(bounded).await {
            tracing::debug!(%error, "a reader of metrics went away");
        }
        drop(slot);
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        Ok(match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                self.node.measure(&self.metrics).await;
                match self.metrics.page() {
                    Ok(page) => page_of(page),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
                }
            }
            (_, "/metrics") => plain(StatusCode::METHOD_NOT_ALLOWED, "GET only"),
            _ => plain(StatusCode::NOT_FOUND, "metrics are at /metrics"),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(listener: &Listener) -> std::io::Result<Box<dyn Stream>> {
    Ok(match listener {
        Listener::Tcp(tcp) => Box::new(tcp.accept().await?.0),
        Listener::Unix(unix, _) => Box::new(unix.accept().await?.0),
    })
}

fn page_of(page: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let kind = hyper::header::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response
}
