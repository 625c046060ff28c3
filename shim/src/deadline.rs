//! Keeps the deadline that a gRPC client sends (header `grpc-timeout`).
//!
//! tonic keeps it too, but answers CANCELLED where the protocol says DEADLINE_EXCEEDED.
//! This one ends a little earlier, so that clients get the right code.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Before the time is over for the client.
const EARLY: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        let answer = self.inner.call(request);
        let Some(limit) = limit else {
            return Box::pin(answer);
        };
        Box::pin(async move {
            let in_time = tokio::time::timeout(limit.saturating_sub(EARLY), answer).await;
            in_time.unwrap_or_else(|_| {
                let status = Status::deadline_exceeded(format!(
                    "the client's time for this call, {limit:?}, is over"
                ));
                Ok(status.into_http())
            })
        })
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::{HeaderMap, Request, Response};
    use tonic::body::Body;
    use tower::{Layer, Service, ServiceExt};

    use super::{DeadlineLayer, limit};

    fn header(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        limit(&headers)
    }

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        assert_eq!(header("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(header("3M"), Some(Duration::from_secs(180)));
        assert_eq!(header("15S"), Some(Duration::from_secs(15)));
        assert_eq!(header("250m"), Some(Duration::from_millis(250)));
        assert_eq!(header("7u"), Some(Duration::from_micros(7)));
        assert_eq!(header("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "5", "5x", "-5m", "123456789m", "5 m"] {
            assert_eq!(header(bad), None, "{bad}");
        }
        assert_eq!(limit(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_late_answer_is_deadline_exceeded_and_not_cancelled() {
        let never = tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let mut service = DeadlineLayer.layer(never);
        let request = Request::builder().header("grpc-timeout", "5m");
        let ready = service.ready().await.unwrap();
        let answer = ready.call(request.body(()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4");
    }
}
