//! HTTP for the whole process: pooled connections, guarded redirects, no secrets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::config::Timeouts;
use super::endpoint::{Endpoint, Trust};
use super::failure::{Failure, presentable};
use super::{guard, tls};

const MAX_REDIRECTS: usize = 5;
const IDLE: Duration = Duration::from_secs(30);
/// Of the body of an error response.
const ERROR_BODY_MAX: usize = 16 * 1024;

/// Connections are shared by everyone with the same trust and route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    trust: Trust,
    /// Past any proxy that the environment names.
    direct: bool,
    /// Plain connections do without the system's certificates.
    encrypted: bool,
}

#[derive(Debug)]
pub(super) struct Transport {
    timeouts: Timeouts,
    clients: Mutex<HashMap<Route, Client>>,
}

/// What to ask for besides the URL. Holds secrets, hence no `Debug`.
#[derive(Default, Clone)]
pub(super) struct Ask<'a> {
    pub(super) accept: Option<&'a str>,
    /// First byte wanted, when not 0.
    pub(super) offset: u64,
    /// Only ever sent to the origin of the URL itself.
    pub(super) authorization: Option<HeaderValue>,
    /// Posts this instead of getting.
    pub(super) form: Option<String>,
}

impl Transport {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            clients: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Response headers, of whatever status but a redirect; those are followed.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        ask: &Ask<'_>,
    ) -> Result<Response, Failure> {
        let mut at = url.clone();
        let mut authorized = true;
        for _ in 0..=MAX_REDIRECTS {
            guard::check_target(&at, &endpoint.base).map_err(Failure::Unavailable)?;
            let response = self.send_once(endpoint, &at, ask, authorized).await?;
            if !response.status().is_redirection() || response.status().as_u16() == 304 {
                return Ok(response);
            }
            if ask.form.is_some() {
                return Err(Failure::Unavailable(
                    "redirects a form with a secret".to_owned(),
                ));
            }
            let next = target_of(&at, response.headers())?;
            // A stranger gets no credentials, nor does whoever the stranger names.
            authorized &= guard::same_origin(&next, url);
            at = next;
        }
        Err(Failure::Unavailable(format!(
            "redirects more than {MAX_REDIRECTS} times"
        )))
    }

    async fn send_once(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        ask: &Ask<'_>,
        authorized: bool,
    ) -> Result<Response, Failure> {
        let client = self.client(endpoint, url).await?;
        let mut request = match &ask.form {
            Some(form) => client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone()),
            None => client.get(url.clone()),
        };
        // A digest is of the bytes as stored, so nothing may compress them underway.
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if ask.offset > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.offset));
        }
        if let (true, Some(value)) = (authorized, &ask.authorization) {
            request = request.header(AUTHORIZATION, value.clone());
        }
        match timeout(self.timeouts.stall, request.send()).await {
            Ok(answer) => answer.map_err(|error| Failure::from_http("request", error)),
            Err(_) => Err(Failure::transient(format!(
                "no answer within {:?}",
                self.timeouts.stall
            ))),
        }
    }

    async fn client(&self, endpoint: &Endpoint, url: &Url) -> Result<Client, Failure> {
        let route = Route {
            trust: endpoint.trust.clone(),
            direct: guard::is_loopback(url),
            encrypted: url.scheme() == "https",
        };
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&route) {
            return Ok(client.clone());
        }
        let client = self.build(&route).map_err(Failure::Unavailable)?;
        clients.insert(route, client.clone());
        Ok(client)
    }

    fn build(&self, route: &Route) -> Result<Client, String> {
        let tls = if route.encrypted {
            tls::trusting_system_and(&route.trust)?
        } else {
            tls::trusting_nobody()?
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(guard::GuardedResolver))
            .connect_timeout(self.timeouts.connect)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("carpel/", env!("CARGO_PKG_VERSION")));
        if route.direct {
            builder = builder.no_proxy();
        }
        builder
            .build()
            .map_err(|error| format!("HTTP client: {error}"))
    }

    /// The whole body of a small document.
    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        let too_long = || Failure::corrupt(format!("document is longer than {limit} bytes"));
        if response
            .content_length()
            .is_some_and(|length| length > limit as u64)
        {
            return Err(too_long());
        }
        let mut pace = Pace::new(&self.timeouts);
        let mut body = Vec::new();
        while let Some(chunk) = pace.next(&mut response).await? {
            if chunk.len() > limit - body.len() {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The failure that a response of an unwanted status is.
    pub(super) async fn refusal(&self, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self
            .body(response, ERROR_BODY_MAX)
            .await
            .unwrap_or_default();
        Failure::from_status(status, &headers, &message(&body))
    }
}

fn target_of(from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(next) = location.and_then(|location| from.join(location).ok()) else {
        return Err(Failure::corrupt("redirects to nowhere"));
    };
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(Failure::Unavailable(format!(
            "redirects from https to {}, which is not encrypted",
            guard::shown(&next)
        )));
    }
    Ok(next)
}

/// Code and message of the first error in a distribution error document.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Document>(body) {
        Ok(Document { errors }) => errors
            .first()
            .map(|entry| presentable(&format!("{} {}", entry.code, entry.message)))
            .unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Reads a body and notices when it stops coming, or as good as stops. Only time
/// spent waiting counts, so a reader who is slow himself loses nothing.
#[derive(Debug)]
pub(super) struct Pace {
    stall: Duration,
    least: u64,
    left: Duration,
    got: u64,
}

impl Pace {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Self {
            stall: timeouts.stall,
            least: timeouts.stall_bytes,
            left: timeouts.stall,
            got: 0,
        }
    }

    pub(super) async fn next(&mut self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let start = Instant::now();
        let answer = timeout(self.left, response.chunk()).await;
        self.left = self.left.saturating_sub(start.elapsed());
        let chunk = answer
            .map_err(|_| {
                let Self { got, stall, .. } = self;
                Failure::transient(format!("stalled: {got} bytes came in {stall:?}"))
            })?
            .map_err(|error| Failure::from_http("connection lost", error))?;
        self.got += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.got >= self.least {
            self.got = 0;
            self.left = self.stall;
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_encrypted() {
        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            HeaderValue::from_static("http://cdn.example/x?sig=secret"),
        );
        let https = Url::parse("https://h.io/v2/").unwrap();
        let failure = target_of(&https, &headers).unwrap_err();
        assert!(failure.why().contains("http://cdn.example/x"));
        assert!(!failure.why().contains("secret"));
        assert!(target_of(&Url::parse("http://h.io/v2/").unwrap(), &headers).is_ok());
        headers.insert(LOCATION, HeaderValue::from_static("/other"));
        assert_eq!(
            target_of(&https, &headers).unwrap().as_str(),
            "https://h.io/other"
        );
        assert!(target_of(&https, &HeaderMap::new()).is_err());
    }

    #[test]
    fn error_documents_are_quoted_and_others_are_not() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}}]}"#;
        assert_eq!(message(body), "DENIED no way");
        assert_eq!(message(b"<html>secret"), "");
        assert_eq!(message(br#"{"errors":[]}"#), "");
    }
}
