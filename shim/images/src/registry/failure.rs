//! What went wrong at one registry or mirror, before it is known whether another
//! one helps.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;
use reqwest::StatusCode;

use crate::engine::Error;
use crate::reference::{Digest, Reference};

/// One failure at one site.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// What was asked for by name is not there.
    NotFound(String),
    /// The name is there, something that it stands for is not.
    Missing(String),
    Denied(String),
    /// May pass: worth another attempt.
    Transient {
        why: String,
        retry_after: Option<Duration>,
    },
    /// Another attempt would end the same.
    Unavailable(String),
    Corrupt(String),
    Unsupported(String),
}

impl Failure {
    pub(super) fn transient(why: impl Into<String>) -> Self {
        Self::Transient {
            why: why.into(),
            retry_after: None,
        }
    }

    pub(super) fn corrupt(why: impl Into<String>) -> Self {
        Self::Corrupt(why.into())
    }

    /// From a response that is not a success. `detail` is what its body says.
    pub(super) fn from_status(status: StatusCode, headers: &HeaderMap, detail: &str) -> Self {
        let why = if detail.is_empty() {
            format!("HTTP {status}")
        } else {
            format!("HTTP {status}: {detail}")
        };
        match status.as_u16() {
            401 | 403 | 451 => Self::Denied(why),
            404 | 410 => Self::NotFound(why),
            408 | 429 | 500 | 502..=504 => Self::Transient {
                why,
                retry_after: retry_after(headers, Timestamp::now()),
            },
            200..=399 => Self::Corrupt(format!("{why} where content was asked for")),
            416 => Self::Corrupt(format!(
                "{why}: the content there is shorter than it should be"
            )),
            _ => Self::Unavailable(why),
        }
    }

    /// From the HTTP library. Addresses are left out: signed URLs are secrets.
    pub(super) fn from_http(doing: &str, error: reqwest::Error) -> Self {
        let mut why = format!("{doing}: ");
        let error = error.without_url();
        why.push_str(&error.to_string());
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            let text = inner.to_string();
            if !why.ends_with(&text) {
                why.push_str(": ");
                why.push_str(&text);
            }
            source = inner.source();
        }
        if why.contains("certificate") {
            Self::Unavailable(why)
        } else {
            Self::transient(why)
        }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Transient { why, .. } => why,
            Self::NotFound(why)
            | Self::Missing(why)
            | Self::Denied(why)
            | Self::Unavailable(why)
            | Self::Corrupt(why)
            | Self::Unsupported(why) => why,
        }
    }

    /// The same, told of another place than the one asked first.
    pub(super) fn at(mut self, place: &str) -> Self {
        let why = match &mut self {
            Self::Transient { why, .. }
            | Self::NotFound(why)
            | Self::Missing(why)
            | Self::Denied(why)
            | Self::Unavailable(why)
            | Self::Corrupt(why)
            | Self::Unsupported(why) => why,
        };
        *why = format!("{place}: {why}");
        self
    }

    /// Asked for not by a name of the user's but by one in a manifest.
    pub(super) fn of_content(self, digest: &Digest) -> Self {
        match self {
            Self::NotFound(why) => Self::Missing(format!("{digest}: {why}")),
            other => other,
        }
    }

    /// As seen from outside: `log` holds every failure with its site, this one last.
    fn into_error(self, reference: &Reference, log: &str, alone: bool) -> Error {
        let registry = reference.registry.clone();
        let name = reference.to_string();
        match self {
            Self::NotFound(_) if alone => Error::NotFound(name),
            Self::NotFound(_) | Self::Missing(_) => Error::NotFound(format!("{name} ({log})")),
            Self::Denied(_) => Error::Denied {
                registry,
                reference: name,
                why: log.to_owned(),
            },
            Self::Transient { .. } | Self::Unavailable(_) => Error::Unavailable {
                registry,
                why: log.to_owned(),
            },
            Self::Corrupt(_) => Error::Corrupt {
                reference: name,
                why: log.to_owned(),
            },
            Self::Unsupported(why) => Error::Unsupported {
                engine: "store",
                what: format!("{name}: {why}"),
            },
        }
    }
}

/// Failures of all sites that were asked, in order. The last one says what kind of
/// error it is: it comes from the registry itself, whose word counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Vec<(String, Failure)>);

impl Failures {
    pub(super) fn push(&mut self, site: &str, failure: Failure) {
        tracing::debug!(site, why = failure.why(), "registry request failed");
        self.0.push((site.to_owned(), failure));
    }

    pub(super) fn to_error(&self, reference: &Reference) -> Error {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(site, failure)| format!("{site}: {}", failure.why()))
            .collect();
        let log = parts.join("; ");
        match self.0.last() {
            Some((_, last)) => last.clone().into_error(reference, &log, self.0.len() == 1),
            None => Error::Unavailable {
                registry: reference.registry.clone(),
                why: "there is nowhere to ask".to_owned(),
            },
        }
    }
}

/// Text from a registry, fit for a message: short, and without control characters.
pub(super) fn presentable(text: &str) -> String {
    const SHOWN: usize = 200;
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(SHOWN).collect::<String>().trim().to_owned()
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = date.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn waits(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        retry_after(&headers, "2026-11-23T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(waits("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            waits("Mon, 23 Nov 2026 12:00:09 GMT"),
            Some(Duration::from_secs(9))
        );
        assert_eq!(waits("Mon, 23 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(waits("soon"), None);
        assert_eq!(waits("-1"), None);
    }

    #[test]
    fn the_last_failure_gives_the_kind_and_all_are_told() {
        let reference = Reference::parse("h.io/a:1").unwrap();
        let mut failures = Failures::default();
        failures.push("http://m1", Failure::Denied("HTTP 401".into()));
        failures.push("http://m2", Failure::transient("refused"));
        failures.push("https://h.io", Failure::NotFound("HTTP 404".into()));
        let error = failures.to_error(&reference);
        assert!(matches!(error, Error::NotFound(_)));
        let text = error.to_string();
        for part in [
            "h.io/a:1",
            "http://m1: HTTP 401",
            "http://m2: refused",
            "HTTP 404",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn statuses_map_by_what_can_be_done() {
        let of =
            |code| Failure::from_status(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), "");
        assert!(matches!(of(401), Failure::Denied(_)));
        assert!(matches!(of(403), Failure::Denied(_)));
        assert!(matches!(of(404), Failure::NotFound(_)));
        assert!(matches!(of(429), Failure::Transient { .. }));
        assert!(matches!(of(503), Failure::Transient { .. }));
        assert!(matches!(of(501), Failure::Unavailable(_)));
        assert!(matches!(of(204), Failure::Corrupt(_)));
    }

    #[test]
    fn text_from_outside_is_made_harmless() {
        assert_eq!(presentable("a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(presentable(&"x".repeat(1000)).len(), 200);
    }
}
