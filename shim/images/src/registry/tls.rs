//! Whom we believe to be who.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::endpoint::Trust;

/// TLS with the system's authorities and those configured besides, and with our own
/// certificate if there is one.
pub(super) fn trusting_system_and(trust: &Trust) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "cannot read some of the system's certificate authorities");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &trust.ca_file {
        add_file(&mut roots, path)?;
    }
    with_roots(roots, trust.identity.as_ref())
}

/// For clients that make no encrypted connections, but must be made with something.
pub(super) fn trusting_nobody() -> Result<ClientConfig, String> {
    with_roots(RootCertStore::empty(), None)
}

fn with_roots(
    roots: RootCertStore,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let (chain, secret) = read_identity(certificate, key)?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| format!("client certificate {}: {error}", certificate.display()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let failed = |path: &Path, why: String| format!("client certificate {}: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(certificate, "there is none".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e.to_string()))?;
    Ok((chain, secret))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let failed = |why: String| format!("certificate authorities in {}: {why}", path.display());
    let mut count = 0_usize;
    for cert in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let cert = cert.map_err(|e| failed(e.to_string()))?;
        roots.add(cert).map_err(|e| failed(e.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(failed("there is none".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no certificate\n").unwrap();
        for path in [empty, dir.path().join("absent.pem")] {
            let error = trusting_system_and(&Trust {
                ca_file: Some(path.clone()),
                identity: None,
            })
            .unwrap_err();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
