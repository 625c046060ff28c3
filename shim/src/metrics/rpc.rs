//! Counts calls on their way through the gRPC server.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::Code;
use tower::{Layer, Service};

use super::Metrics;

#[derive(Debug, Clone)]
pub(crate) struct RpcLayer(pub(crate) Arc<Metrics>);

impl<S> Layer<S> for RpcLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            metrics: Arc::clone(&self.0),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = method(request.uri().path()).to_owned();
        let (metrics, begin) = (Arc::clone(&self.metrics), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                metrics.call(&method, code(response), begin.elapsed());
            }
            answer
        })
    }
}

/// The last part of `/runtime.v1.RuntimeService/Version`. Clients choose the path:
/// what is no word of sensible length does not become a label.
fn method(path: &str) -> &str {
    let services = ["/runtime.v1.RuntimeService/", "/runtime.v1.ImageService/"];
    let name = services
        .iter()
        .find_map(|service| path.strip_prefix(service));
    let word = |name: &&str| name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphabetic());
    name.filter(word).unwrap_or("other")
}

/// A call that failed says so in its headers; what comes later is the stream's.
fn code<R>(response: &Response<R>) -> &'static str {
    let status = response.headers().get("grpc-status");
    let code = status.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::{code, method};

    #[test]
    fn labels_are_methods_of_ours_and_nothing_else() {
        assert_eq!(method("/runtime.v1.RuntimeService/Version"), "Version");
        assert_eq!(method("/runtime.v1.ImageService/PullImage"), "PullImage");
        for strange in [
            "/",
            "/a.b/C",
            "/runtime.v1.ImageService/x\"y",
            "/runtime.v1.ImageService/",
        ] {
            let name = method(strange);
            assert!(name == "other" || name.is_empty(), "{name}");
        }
        let long = format!("/runtime.v1.ImageService/{}", "x".repeat(41));
        assert_eq!(method(&long), "other");
    }

    #[test]
    fn a_refusal_is_read_from_the_headers() {
        let refused = http::Response::builder()
            .header("grpc-status", "5")
            .body(())
            .unwrap();
        assert_eq!(code(&refused), "NOT_FOUND");
        assert_eq!(code(&http::Response::new(())), "OK");
    }
}
