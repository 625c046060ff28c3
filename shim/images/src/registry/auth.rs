//! Proving who pulls: challenges answered with the pull's own credentials.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, timeout};

use super::challenge::{Challenge, challenges};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::guard;
use super::keychain::{Found, Keychain};
use super::transport::{Ask, Transport};
use crate::engine::Credentials;

const TOKEN_BODY_MAX: usize = 1024 * 1024;
/// What the token protocol says a token without a term lasts.
const TOKEN_TERM: Duration = Duration::from_secs(60);
/// A token is not used so shortly before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);
const CLIENT_ID: &str = "carpel";

/// Credentials of one pull at one endpoint, and what was got for them.
pub(super) struct Authorizer {
    source: Source,
    /// Looked up when a challenge comes, and not before.
    found: OnceCell<Found>,
    repository: String,
    /// Asked for when the challenge does not say what to ask for.
    default_scope: String,
    granted: Mutex<Option<Grant>>,
}

/// Where the credentials of a pull come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// With the pull.
    Given(Credentials),
    /// From this node's files and helpers, for what is called so.
    Keychain {
        keychain: Arc<Keychain>,
        registry: String,
    },
}

/// An `Authorization` header that has worked or should.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    generation: u64,
    expires: Option<Instant>,
    challenge: Challenge,
}

impl Grant {
    fn expired(&self) -> bool {
        self.expires
            .is_some_and(|at| Instant::now() + TOKEN_MARGIN >= at)
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("source", &self.source)
            .field("default_scope", &self.default_scope)
            .finish_non_exhaustive()
    }
}

impl Authorizer {
    pub(super) fn new(source: Source, repository: &str) -> Self {
        Self {
            source,
            found: OnceCell::new(),
            repository: repository.to_owned(),
            default_scope: format!("repository:{repository}:pull"),
            granted: Mutex::new(None),
        }
    }

    async fn look_up(&self) {
        let look = || async {
            match &self.source {
                Source::Given(credentials) => Found {
                    credentials: credentials.clone(),
                    troubles: Vec::new(),
                },
                Source::Keychain { keychain, registry } => {
                    keychain.find(registry, &self.repository).await
                }
            }
        };
        self.found.get_or_init(look).await;
    }

    /// Nothing before they were looked up.
    fn credentials(&self) -> &Credentials {
        const NOBODY: &Credentials = &Credentials::Anonymous;
        self.found.get().map_or(NOBODY, |found| &found.credentials)
    }

    /// What kept credentials from being found.
    pub(super) fn troubles(&self) -> &[String] {
        self.found.get().map_or(&[], |found| &found.troubles)
    }

    /// What the last challenge was answered with, renewed if it is about to expire.
    pub(super) async fn current(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
    ) -> Result<Option<Grant>, Failure> {
        let mut granted = self.granted.lock().await;
        if let Some(old) = granted.as_ref().filter(|grant| grant.expired()) {
            let (challenge, generation) = (old.challenge.clone(), old.generation + 1);
            *granted = Some(
                self.grant(transport, endpoint, challenge, generation)
                    .await?,
            );
        }
        Ok(granted.clone())
    }

    /// Answers the challenges in `headers`, which came in spite of `refused`. When
    /// another request has done so meanwhile, that answer is given, and `false`.
    pub(super) async fn renew(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        refused: Option<&Grant>,
        headers: &HeaderMap,
    ) -> Result<(Grant, bool), Failure> {
        let mut granted = self.granted.lock().await;
        if let Some(other) = granted.as_ref()
            && refused.is_none_or(|refused| refused.generation != other.generation)
        {
            return Ok((other.clone(), false));
        }
        self.look_up().await;
        let challenge = self.choose(challenges(headers))?;
        let generation = granted.as_ref().map_or(0, |grant| grant.generation + 1);
        let grant = self
            .grant(transport, endpoint, challenge, generation)
            .await?;
        *granted = Some(grant.clone());
        Ok((grant, true))
    }

    fn choose(&self, offered: Vec<Challenge>) -> Result<Challenge, Failure> {
        let mut basic = None;
        for challenge in offered {
            match challenge {
                Challenge::Bearer { .. } => return Ok(challenge),
                Challenge::Basic => basic = Some(challenge),
            }
        }
        match (basic, self.credentials()) {
            (Some(basic), Credentials::Basic { .. } | Credentials::RegistryToken(_)) => Ok(basic),
            (Some(_), _) => Err(Failure::Denied(
                "HTTP 401: wants a user name and a password".to_owned(),
            )),
            (None, Credentials::RegistryToken(_)) => Ok(Challenge::Basic),
            (None, _) => Err(Failure::Denied(
                "HTTP 401: and does not say, in terms known here, what it wants".to_owned(),
            )),
        }
    }

    async fn grant(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        challenge: Challenge,
        generation: u64,
    ) -> Result<Grant, Failure> {
        let (header, expires) = match (&challenge, self.credentials()) {
            (_, Credentials::RegistryToken(token)) => (bearer(token)?, None),
            (Challenge::Basic, Credentials::Basic { username, password }) => {
                (basic(username, password)?, None)
            }
            (Challenge::Basic, _) => {
                return Err(Failure::Denied(
                    "wants a user name and a password".to_owned(),
                ));
            }
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                _,
            ) => {
                let wish = Wish {
                    realm: self.realm(endpoint, realm)?,
                    service: service.as_deref(),
                    scope: scope.as_deref().unwrap_or(&self.default_scope),
                };
                let limit = transport.timeouts().document;
                let token = timeout(limit, self.fetch_token(transport, endpoint, &wish))
                    .await
                    .map_err(|_| Failure::transient(format!("no token within {limit:?}")))??;
                let term = token.expires_in.map_or(TOKEN_TERM, Duration::from_secs);
                (
                    bearer(token.text()?)?,
                    Instant::now().checked_add(term.max(2 * TOKEN_MARGIN)),
                )
            }
        };
        Ok(Grant {
            header,
            generation,
            expires,
            challenge,
        })
    }

    /// The token service's address, if it is one that may be asked.
    fn realm(&self, endpoint: &Endpoint, text: &str) -> Result<Url, Failure> {
        let url = Url::parse(text)
            .map_err(|_| Failure::corrupt("names a token service that is not a URL"))?;
        let denied = |why: &str| {
            Failure::Denied(format!(
                "names token service {}, which {why}",
                guard::shown(&url)
            ))
        };
        guard::check_target(&url, &endpoint.base).map_err(|why| {
            Failure::Denied(format!("names a token service not to be asked: {why}"))
        })?;
        if url.scheme() != "https" && endpoint.base.scheme() == "https" {
            return Err(denied("is not encrypted"));
        }
        let secret = !matches!(self.credentials(), Credentials::Anonymous);
        if secret && !guard::may_carry_secrets(&url, &endpoint.base) {
            return Err(denied("is not encrypted, so it gets no credentials"));
        }
        Ok(url)
    }

    async fn fetch_token(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        wish: &Wish<'_>,
    ) -> Result<Token, Failure> {
        let mut url = wish.realm.clone();
        let ask = match self.credentials() {
            Credentials::IdentityToken(token) => Ask {
                form: Some(wish.form(token)),
                ..Ask::default()
            },
            Credentials::Basic { username, password } => {
                wish.append_to(&mut url);
                url.query_pairs_mut().append_pair("account", username);
                Ask {
                    authorization: Some(basic(username, password)?),
                    ..Ask::default()
                }
            }
            Credentials::Anonymous | Credentials::RegistryToken(_) => {
                wish.append_to(&mut url);
                Ask::default()
            }
        };
        let place = format!("token service {}", guard::shown(&url));
        let told = |failure: Failure| match failure.at(&place) {
            // It is the token service that is not there, not the image.
            Failure::NotFound(why) => Failure::Denied(why),
            other => other,
        };
        let response = transport.send(endpoint, &url, &ask).await.map_err(told)?;
        if !response.status().is_success() {
            return Err(told(transport.refusal(response).await));
        }
        let body = transport
            .body(response, TOKEN_BODY_MAX)
            .await
            .map_err(told)?;
        serde_json::from_slice(&body).map_err(|_| told(Failure::corrupt("gave no token document")))
    }
}

/// What is asked of a token service.
struct Wish<'a> {
    realm: Url,
    service: Option<&'a str>,
    scope: &'a str,
}

impl Wish<'_> {
    fn append_to(&self, url: &mut Url) {
        let mut query = url.query_pairs_mut();
        if let Some(service) = self.service {
            query.append_pair("service", service);
        }
        // Several scopes are separated by blanks in a challenge, by parameters here.
        for scope in self.scope.split_ascii_whitespace() {
            query.append_pair("scope", scope);
        }
    }

    fn form(&self, refresh_token: &str) -> String {
        let mut url = self.realm.clone();
        url.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("scope", self.scope);
        url.query().unwrap_or_default().to_owned()
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    fn text(&self) -> Result<&str, Failure> {
        let given = self.token.as_deref().filter(|token| !token.is_empty());
        given
            .or(self.access_token.as_deref())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| Failure::corrupt("token service gave no token"))
    }
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Failure> {
    secret(format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Failure::Denied("token has characters that no header may have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorizer_of(credentials: Credentials) -> Authorizer {
        let authorizer = Authorizer::new(Source::Given(credentials.clone()), "x");
        let troubles = Vec::new();
        let found = Found {
            credentials,
            troubles,
        };
        authorizer.found.set(found).unwrap();
        authorizer
    }
    use crate::registry::config::RegistryConfig;
    use crate::registry::endpoint::endpoints;

    fn endpoint(registry: &str) -> Endpoint {
        endpoints(&RegistryConfig::default(), registry)
            .unwrap()
            .remove(0)
    }

    fn user() -> Credentials {
        Credentials::Basic {
            username: "u".into(),
            password: "hunter2".into(),
        }
    }

    #[test]
    fn realms_are_encrypted_unless_the_registry_is_local() {
        let of = |registry: &str, credentials: Credentials, realm: &str| {
            authorizer_of(credentials)
                .realm(&endpoint(registry), realm)
                .is_ok()
        };
        assert!(of("h.io", user(), "https://auth.example/token"));
        for realm in [
            "http://auth.example/token",
            "http://h.io/token",
            "http://169.254.169.254/token",
            "https://169.254.169.254/token",
            "https://127.0.0.1/token",
            "file:///etc/shadow",
            "token",
        ] {
            assert!(!of("h.io", user(), realm), "{realm}");
            assert!(!of("h.io", Credentials::Anonymous, realm), "{realm}");
        }
        assert!(of("127.0.0.1:5000", user(), "http://127.0.0.1:5001/token"));
        assert!(of(
            "127.0.0.1:5000",
            Credentials::Anonymous,
            "http://auth.lan/token"
        ));
        assert!(!of("127.0.0.1:5000", user(), "http://auth.lan/token"));
    }

    #[test]
    fn forms_and_queries_are_escaped() {
        let realm = Url::parse("https://a.io/t?x=1").unwrap();
        let wish = Wish {
            realm: realm.clone(),
            service: Some("s&t"),
            scope: "a:b:pull c",
        };
        let mut url = realm;
        wish.append_to(&mut url);
        assert_eq!(
            url.query(),
            Some("x=1&service=s%26t&scope=a%3Ab%3Apull&scope=c")
        );
        let form = wish.form("r&t");
        assert!(
            form.contains("refresh_token=r%26t") && !form.contains("x=1"),
            "{form}"
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let authorizer = authorizer_of(user());
        assert!(!format!("{authorizer:?}").contains("hunter2"));
        assert_eq!(format!("{:?}", basic("u", "hunter2").unwrap()), "Sensitive");
        assert!(secret("Bearer a\r\nb".into()).is_err());
    }
}
