//! Credentials that stand on this node: docker's `config.json` and its helpers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{HostConfig, KeychainConfig};
use super::helper;
use crate::engine::Credentials;

/// Longest configuration file that is read.
const FILE_MAX: u64 = 1 << 20;
const DOCKER_HUB: &str = "docker.io";
/// What Docker Hub is called in docker's own files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where credentials may be found. Everything is read anew for each pull.
#[derive(Debug, Clone)]
pub(super) struct Keychain {
    config: KeychainConfig,
    hosts: BTreeMap<String, HostConfig>,
}

/// What was found, and what kept places from being looked at.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) credentials: Credentials,
    /// Without secrets.
    pub(super) troubles: Vec<String>,
}

/// docker's `config.json`, as far as it concerns pulls. Holds secrets: no `Debug`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Clone, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Keychain {
    pub(super) fn new(config: KeychainConfig, hosts: BTreeMap<String, HostConfig>) -> Self {
        Self { config, hosts }
    }

    /// Looks in the registry's own settings first, then in the files, in order.
    pub(super) async fn find(&self, registry: &str, repository: &str) -> Found {
        let mut found = Found::default();
        let host = self.hosts.get(registry);
        if let Some(name) = host.and_then(|host| host.credential_helper.as_deref()) {
            let answer = self.ask(name, registry).await;
            if found.take(format_args!("credential helper {name}"), answer) {
                return found;
            }
        }
        let own = host.and_then(|host| host.auth_file.as_ref());
        for path in own.into_iter().chain(&self.config.files) {
            let answer = self.look_in(path, registry, repository).await;
            if found.take(path.display(), answer) {
                return found;
            }
        }
        found
    }

    async fn look_in(
        &self,
        path: &Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, String> {
        let config = match read(path) {
            Ok(config) => config,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let by_name = best(&config.cred_helpers, registry, "");
        if let Some(name) = by_name {
            return self.ask(name, registry).await;
        }
        let trouble = match config.creds_store.as_deref().filter(|n| !n.is_empty()) {
            Some(name) => match self.ask(name, registry).await {
                Ok(None) => None,
                Ok(found) => return Ok(found),
                Err(why) => Some(why),
            },
            None => None,
        };
        let entry = best(&config.auths, registry, repository);
        match (entry.map(Auth::credentials), trouble) {
            (Some(Ok(Some(credentials))), _) => Ok(Some(credentials)),
            (Some(Err(why)), _) | (_, Some(why)) => Err(why),
            _ => Ok(None),
        }
    }

    async fn ask(&self, name: &str, registry: &str) -> Result<Option<Credentials>, String> {
        let server = if registry == DOCKER_HUB {
            DOCKER_HUB_KEY
        } else {
            registry
        };
        helper::ask(&self.config, name, server).await
    }
}

impl Found {
    /// Whether there is something now.
    fn take(&mut self, place: impl Display, answer: Result<Option<Credentials>, String>) -> bool {
        match answer {
            Ok(Some(credentials)) => {
                self.credentials = credentials;
                return true;
            }
            Ok(None) => {}
            Err(why) => {
                let trouble = format!("{place}: {why}");
                tracing::warn!(trouble, "no credentials from there");
                self.troubles.push(trouble);
            }
        }
        false
    }
}

impl Auth {
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        let Self {
            auth,
            username,
            password,
            identitytoken,
            registrytoken,
        } = self.clone();
        if !identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(identitytoken)));
        }
        if !registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(registrytoken)));
        }
        if !username.is_empty() {
            return Ok(Some(Credentials::Basic { username, password }));
        }
        if auth.is_empty() {
            return Ok(None);
        }
        let credentials = Credentials::from_docker_auth(&auth);
        credentials.map(Some).map_err(|error| error.to_string())
    }
}

fn read(path: &Path) -> io::Result<DockerConfig> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("is no regular file"));
    }
    file.take(FILE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(invalid("is too large"));
    }
    // What serde says of it may quote a secret.
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(&format!(
            "is no docker configuration (line {line}, column {column})"
        ))
    })
}

/// The entry for the longest part of `registry/repository`.
fn best<'a, T>(
    entries: &'a BTreeMap<String, T>,
    registry: &str,
    repository: &str,
) -> Option<&'a T> {
    let fits = entries.iter().filter_map(|(key, entry)| {
        let (host, path) = place(key);
        let below = repository
            .strip_prefix(path.as_str())
            .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        (host == place(registry).0 && below).then_some((path.len(), entry))
    });
    fits.max_by_key(|(length, _)| *length)
        .map(|(_, entry)| entry)
}

/// Host and path of a key, which may be a URL, as old versions of docker wrote them.
fn place(key: &str) -> (String, String) {
    let key = key.trim();
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let host = match host.to_ascii_lowercase() {
        hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host,
    };
    (host, path.to_owned())
}

/// Whether an address that came with credentials means this registry.
pub fn is_for(server: &str, registry: &str) -> bool {
    server.trim().is_empty() || place(server).0 == place(registry).0
}

/// Where helpers are looked for unless told otherwise.
pub(super) fn default_dirs() -> Vec<PathBuf> {
    [
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
    ]
    .map(PathBuf::from)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeMap<String, String> {
        let pair = |name: &&str| ((*name).to_owned(), (*name).to_owned());
        names.iter().map(pair).collect()
    }

    #[test]
    fn the_longest_fitting_key_wins() {
        let all = keys(&[
            "h.io",
            "https://h.io/team",
            "h.io/team/app",
            "h.io/te",
            "o.io",
        ]);
        let pick = |repository| best(&all, "h.io", repository).map(String::as_str);
        assert_eq!(pick("team/app"), Some("h.io/team/app"));
        assert_eq!(pick("team/app/sub"), Some("h.io/team/app"));
        assert_eq!(pick("team/application"), Some("https://h.io/team"));
        assert_eq!(pick("else"), Some("h.io"));
        assert_eq!(best(&all, "h.io:5000", "else"), None);
        assert_eq!(best(&keys(&["h.io/team"]), "h.io", "else"), None);
    }

    #[test]
    fn every_name_of_docker_hub_is_the_same() {
        for key in [
            DOCKER_HUB_KEY,
            "docker.io",
            "index.docker.io",
            "https://registry-1.docker.io/v2/",
        ] {
            assert!(
                best(&keys(&[key]), "docker.io", "library/x").is_some(),
                "{key}"
            );
            assert!(is_for(key, "docker.io"), "{key}");
        }
        assert!(is_for("", "h.io") && is_for("https://h.io", "h.io"));
        assert!(!is_for("h.io.evil", "h.io") && !is_for("h.io:1", "h.io"));
    }

    #[test]
    fn every_form_of_an_entry_is_understood() {
        let auth = |json: &str| serde_json::from_str::<Auth>(json).unwrap().credentials();
        for (json, kind) in [
            (r#"{"auth":"dTpw"}"#, "Basic(…)"),
            (r#"{"username":"u","password":"p"}"#, "Basic(…)"),
            (r#"{"auth":"dTpw","identitytoken":"t"}"#, "IdentityToken(…)"),
            (r#"{"registrytoken":"t"}"#, "RegistryToken(…)"),
        ] {
            let found = auth(json).unwrap().unwrap();
            assert_eq!(format!("{found:?}"), kind);
        }
        assert!(auth("{}").unwrap().is_none());
        assert!(auth(r#"{"auth":"!"}"#).is_err());
    }
}
