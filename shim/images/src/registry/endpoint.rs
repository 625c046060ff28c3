//! Which URLs stand for a registry.

use std::path::PathBuf;

use reqwest::Url;

use super::config::{HostConfig, Mirror, RegistryConfig};
use super::guard;
use crate::engine::Error;

/// Whom to believe, and how to show who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    pub(super) ca_file: Option<PathBuf>,
    /// Certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// A mirror or a registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Ends in a slash.
    pub(super) base: Url,
    /// For mirrors: the registry stood for, which one mirror of several must know.
    pub(super) namespace: Option<String>,
    pub(super) trust: Trust,
    /// Whether it may see the credentials of the pull.
    pub(super) trusted: bool,
}

impl Endpoint {
    pub(super) fn manifest_url(&self, repository: &str, selector: &str) -> Result<Url, String> {
        self.url(repository, "manifests", selector)
    }

    pub(super) fn blob_url(&self, repository: &str, digest: &str) -> Result<Url, String> {
        self.url(repository, "blobs", digest)
    }

    fn url(&self, repository: &str, kind: &str, name: &str) -> Result<Url, String> {
        let mut url = self
            .base
            .join(&format!("v2/{repository}/{kind}/{name}"))
            .map_err(|error| format!("{} with {repository}: {error}", self.base))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }
}

/// Everything to ask for content of `registry`, in order; the registry itself last.
pub(super) fn endpoints(config: &RegistryConfig, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let fallback = HostConfig::default();
    let configured = config.hosts.get(registry);
    let host = configured.unwrap_or(&fallback);
    let mut all = Vec::with_capacity(host.mirrors.len() + 1);
    for mirror in &host.mirrors {
        all.push(mirror_endpoint(config, registry, mirror)?);
    }
    let itself = Endpoint {
        base: server_url(registry, host)?,
        namespace: None,
        trust: Trust {
            ca_file: host.ca_file.clone(),
            identity: host.client_identity.clone(),
        },
        trusted: true,
    };
    let link_local = guard::address(&itself.base).is_some_and(guard::is_link_local);
    if link_local && configured.is_none() {
        return Err(Error::Invalid {
            what: format!("registry {registry}"),
            why: "is a link-local address that is not configured as a registry".to_owned(),
        });
    }
    all.push(itself);
    Ok(all)
}

/// What is configured for the mirror's own host holds for it here too.
fn mirror_endpoint(
    config: &RegistryConfig,
    registry: &str,
    mirror: &Mirror,
) -> Result<Endpoint, Error> {
    let base = base_url(&format!("mirror of {registry}"), &mirror.url)?;
    let own = config.hosts.get(&authority(&base));
    let ca_file = || own.and_then(|host| host.ca_file.clone());
    Ok(Endpoint {
        trust: Trust {
            ca_file: mirror.ca_file.clone().or_else(ca_file),
            identity: own.and_then(|host| host.client_identity.clone()),
        },
        base,
        namespace: Some(registry.to_owned()),
        trusted: mirror.send_credentials,
    })
}

/// The host of a URL as a registry is called: with the port if that is not the usual.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn server_url(registry: &str, host: &HostConfig) -> Result<Url, Error> {
    let what = format!("registry {registry}");
    if let Some(server) = &host.server {
        return base_url(&what, server);
    }
    let name = if registry == "docker.io" {
        "registry-1.docker.io"
    } else {
        registry
    };
    let plain = base_url(&what, &format!("http://{name}"))?;
    if host.insecure || guard::is_loopback(&plain) {
        return Ok(plain);
    }
    base_url(&what, &format!("https://{name}"))
}

fn base_url(what: &str, text: &str) -> Result<Url, Error> {
    let invalid = |why: String| Error::Invalid {
        what: format!("{what}: URL {text:?}"),
        why,
    };
    let mut url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(invalid(
            "is neither http:// nor https:// with a host".to_owned(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "holds a user name; credentials come with the pull".to_owned(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query or fragment".to_owned()));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(config: &RegistryConfig, registry: &str) -> Vec<String> {
        let all = endpoints(config, registry).unwrap();
        all.iter()
            .map(|endpoint| endpoint.base.to_string())
            .collect()
    }

    fn with(registry: &str, host: HostConfig) -> RegistryConfig {
        let mut config = RegistryConfig::default();
        config.hosts.insert(registry.to_owned(), host);
        config
    }

    #[test]
    fn plain_http_is_for_loopback_and_those_told_so() {
        let config = RegistryConfig::default();
        assert_eq!(
            bases(&config, "docker.io"),
            ["https://registry-1.docker.io/"]
        );
        assert_eq!(bases(&config, "ghcr.io"), ["https://ghcr.io/"]);
        assert_eq!(bases(&config, "localhost:5000"), ["http://localhost:5000/"]);
        assert_eq!(bases(&config, "127.0.0.9:5000"), ["http://127.0.0.9:5000/"]);
        assert_eq!(bases(&config, "[::1]:5000"), ["http://[::1]:5000/"]);
        let insecure = with(
            "lan:5000",
            HostConfig {
                insecure: true,
                ..HostConfig::default()
            },
        );
        assert_eq!(bases(&insecure, "lan:5000"), ["http://lan:5000/"]);
        let server = Some("https://localhost:5000".to_owned());
        let tls = with(
            "localhost:5000",
            HostConfig {
                server,
                ..HostConfig::default()
            },
        );
        assert_eq!(bases(&tls, "localhost:5000"), ["https://localhost:5000/"]);
    }

    #[test]
    fn mirrors_come_first_in_order_and_know_whom_they_stand_for() {
        let mirrors = vec![Mirror::new("http://a:1/pre/fix"), Mirror::new("https://b")];
        let config = with(
            "docker.io",
            HostConfig {
                mirrors,
                ..HostConfig::default()
            },
        );
        let all = endpoints(&config, "docker.io").unwrap();
        assert_eq!(
            bases(&config, "docker.io"),
            [
                "http://a:1/pre/fix/",
                "https://b/",
                "https://registry-1.docker.io/"
            ]
        );
        assert_eq!(
            all[0].manifest_url("library/x", "1").unwrap().as_str(),
            "http://a:1/pre/fix/v2/library/x/manifests/1?ns=docker.io"
        );
        assert_eq!(
            all[2].blob_url("library/x", "sha256:00").unwrap().as_str(),
            "https://registry-1.docker.io/v2/library/x/blobs/sha256:00"
        );
        assert_eq!(
            [all[0].trusted, all[1].trusted, all[2].trusted],
            [false, false, true]
        );
    }

    #[test]
    fn bad_urls_are_refused_by_name() {
        for text in [
            "nonsense",
            "ftp://a",
            "http://u:p@a",
            "http://a?x=1",
            "http://",
        ] {
            let mirrors = vec![Mirror::new(text)];
            let config = with(
                "docker.io",
                HostConfig {
                    mirrors,
                    ..HostConfig::default()
                },
            );
            let error = endpoints(&config, "docker.io").unwrap_err().to_string();
            assert!(
                error.contains("mirror of docker.io") && error.contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn metadata_addresses_are_no_registries_unless_configured() {
        assert!(endpoints(&RegistryConfig::default(), "169.254.169.254").is_err());
        let config = with(
            "169.254.1.1",
            HostConfig {
                insecure: true,
                ..HostConfig::default()
            },
        );
        assert!(endpoints(&config, "169.254.1.1").is_ok());
    }
}
