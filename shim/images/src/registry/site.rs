//! One mirror or registry, as one pull uses it: requests with authorisation,
//! checked statuses, documents and blob bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Response, StatusCode, Url};
use tokio::time::{sleep, timeout};

use super::auth::{Authorizer, Source};
use super::config::RetryPolicy;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::guard;
use super::manifest::Descriptor;
use super::retry;
use super::transport::{Ask, Transport};
use super::verify::digest_of;
use crate::reference::{Algorithm, Digest};

/// Answers to a challenge tried in one request.
const AUTH_ROUNDS: usize = 3;

#[derive(Debug)]
pub(super) struct Site {
    transport: Arc<Transport>,
    endpoint: Endpoint,
    repository: String,
    authorizer: Authorizer,
    policy: RetryPolicy,
    /// Failed this pull in a way that makes asking again a waste.
    suspect: AtomicBool,
}

/// A small document whose bytes are what their digest says.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) content_type: Option<String>,
}

/// A blob's body. Its first `skip` bytes are ones that were not asked for.
#[derive(Debug)]
pub(super) struct BlobBody {
    pub(super) response: Response,
    pub(super) skip: u64,
}

impl Site {
    pub(super) fn new(
        transport: Arc<Transport>,
        endpoint: Endpoint,
        repository: &str,
        source: Source,
        policy: RetryPolicy,
    ) -> Self {
        Self {
            transport,
            endpoint,
            repository: repository.to_owned(),
            authorizer: Authorizer::new(source, repository),
            policy,
            suspect: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.endpoint.name()
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    pub(super) fn suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(super) fn set_suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// The manifest or index that a tag or digest names.
    pub(super) async fn manifest(
        &self,
        selector: &str,
        expected: Option<&Digest>,
        accept: &str,
        limit: usize,
    ) -> Result<Document, Failure> {
        let url = self.endpoint.manifest_url(&self.repository, selector);
        let url = url.map_err(Failure::Unavailable)?;
        self.document(&url, expected, Some(accept), limit).await
    }

    /// A blob small enough to hold: the image configuration.
    pub(super) async fn small_blob(
        &self,
        blob: &Descriptor,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        if blob.size > limit as u64 {
            let size = blob.size;
            return Err(Failure::corrupt(format!(
                "{} has {size} bytes, too many",
                blob.digest
            )));
        }
        let url = self.blob_url(&blob.digest)?;
        let document = self.document(&url, Some(&blob.digest), None, limit).await;
        let document = document.map_err(|failure| failure.of_content(&blob.digest))?;
        if document.bytes.len() as u64 != blob.size {
            return Err(Failure::corrupt(format!(
                "{} is not of its declared size",
                blob.digest
            )));
        }
        Ok(document.bytes)
    }

    async fn document(
        &self,
        url: &Url,
        expected: Option<&Digest>,
        accept: Option<&str>,
        limit: usize,
    ) -> Result<Document, Failure> {
        let patience = self.transport.timeouts().document;
        let mut failed = 0;
        loop {
            let failure =
                match timeout(patience, self.document_once(url, expected, accept, limit)).await {
                    Ok(Ok(document)) => return Ok(document),
                    Ok(Err(failure)) => failure,
                    Err(_) => Failure::transient(format!("no document within {patience:?}")),
                };
            failed += 1;
            match retry::pause(&self.policy, &failure, failed, retry::jitter()) {
                Some(pause) => sleep(pause).await,
                None => return Err(self.explained(failure)),
            }
        }
    }

    async fn document_once(
        &self,
        url: &Url,
        expected: Option<&Digest>,
        accept: Option<&str>,
        limit: usize,
    ) -> Result<Document, Failure> {
        let response = self.get(url, accept, 0).await?;
        if response.status() != StatusCode::OK {
            return Err(self.transport.refusal(response).await);
        }
        let claimed = claimed_digest(response.headers())?;
        let content_type = text(response.headers(), CONTENT_TYPE.as_str()).map(essence);
        let bytes = self.transport.body(response, limit).await?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = digest_of(algorithm, &bytes);
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(Failure::corrupt(format!(
                "content is {digest}, not what was asked for"
            )));
        }
        if claimed.is_some_and(|claim| claim != digest_of(claim.algorithm(), &bytes)) {
            return Err(Failure::corrupt(format!(
                "content is {digest}, its header says otherwise"
            )));
        }
        Ok(Document {
            bytes,
            digest,
            content_type,
        })
    }

    /// A refusal may come of credentials that could not be had.
    fn explained(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Denied(why) if !self.authorizer.troubles().is_empty() => {
                let troubles = self.authorizer.troubles().join("; ");
                Failure::Denied(format!("{why} ({troubles})"))
            }
            other => other,
        }
    }

    fn blob_url(&self, digest: &Digest) -> Result<Url, Failure> {
        let url = self
            .endpoint
            .blob_url(&self.repository, &digest.to_string());
        url.map_err(Failure::Unavailable)
    }

    /// Opens a blob at `offset`. One attempt; who cannot count is asked for the whole.
    pub(super) async fn blob(&self, blob: &Descriptor, offset: u64) -> Result<BlobBody, Failure> {
        let url = self.blob_url(&blob.digest)?;
        let mut response = self.get(&url, None, offset).await?;
        let confused = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                offset > 0 && check_range(response.headers(), offset, blob.size).is_err()
            }
            status => offset > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE,
        };
        if confused {
            response = self.get(&url, None, 0).await?;
        }
        let (skip, length) = match response.status() {
            StatusCode::OK => (offset, blob.size),
            StatusCode::PARTIAL_CONTENT if offset > 0 && !confused => {
                check_range(response.headers(), offset, blob.size)?;
                (0, blob.size - offset)
            }
            _ => {
                return Err(self
                    .transport
                    .refusal(response)
                    .await
                    .of_content(&blob.digest));
            }
        };
        let declared = text(response.headers(), CONTENT_LENGTH.as_str());
        if let Some(declared) = declared.filter(|declared| *declared != length.to_string()) {
            let digest = &blob.digest;
            return Err(Failure::corrupt(format!(
                "{digest} comes with {declared} bytes where there should be {length}"
            )));
        }
        Ok(BlobBody { response, skip })
    }

    /// Response headers, once the site is content with who asks.
    async fn get(&self, url: &Url, accept: Option<&str>, offset: u64) -> Result<Response, Failure> {
        let (transport, endpoint) = (&*self.transport, &self.endpoint);
        let mut grant = self.authorizer.current(transport, endpoint).await?;
        let mut fresh = false;
        for _ in 0..AUTH_ROUNDS {
            let authorization = grant.as_ref().map(|grant| grant.header.clone());
            let ask = Ask {
                accept,
                offset,
                authorization,
                form: None,
            };
            let response = transport.send(endpoint, url, &ask).await?;
            // A challenge from where a redirect led is none of the registry's.
            let own = guard::same_origin(response.url(), url);
            if response.status() != StatusCode::UNAUTHORIZED || fresh || !own {
                return Ok(response);
            }
            let headers = response.headers();
            let renewed = self
                .authorizer
                .renew(transport, endpoint, grant.as_ref(), headers);
            let (next, new) = renewed.await?;
            (grant, fresh) = (Some(next), new);
        }
        Err(Failure::Denied(
            "HTTP 401: every token is refused".to_owned(),
        ))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn claimed_digest(headers: &HeaderMap) -> Result<Option<Digest>, Failure> {
    match headers.get("docker-content-digest") {
        None => Ok(None),
        Some(value) => match value.to_str().map(Digest::parse) {
            Ok(Ok(digest)) => Ok(Some(digest)),
            _ => Err(Failure::corrupt("Docker-Content-Digest is not a digest")),
        },
    }
}

/// `bytes first-last/total` must be just the rest of the blob.
fn check_range(headers: &HeaderMap, offset: u64, size: u64) -> Result<(), Failure> {
    let wrong = || Failure::corrupt("answers with another range than was asked for");
    let range = text(headers, CONTENT_RANGE.as_str()).ok_or_else(wrong)?;
    let (span, total) = range
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(wrong)?;
    let (first, last) = span.split_once('-').ok_or_else(wrong)?;
    let whole = total == "*" || total.parse() == Ok(size);
    if first.parse() == Ok(offset) && last.parse() == Ok(size - 1) && whole {
        Ok(())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_range_asked_for_will_do() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(value));
            check_range(&headers, 10, 100).is_ok()
        };
        assert!(check("bytes 10-99/100"));
        assert!(check("bytes 10-99/*"));
        for value in [
            "bytes 0-99/100",
            "bytes 10-98/100",
            "bytes 10-99/101",
            "10-99/100",
            "bytes",
        ] {
            assert!(!check(value), "{value}");
        }
        assert!(check_range(&HeaderMap::new(), 10, 100).is_err());
    }

    #[test]
    fn media_types_lose_their_parameters() {
        assert_eq!(
            essence("Application/JSON; charset=utf-8"),
            "application/json"
        );
    }
}
