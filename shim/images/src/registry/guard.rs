//! Where a registry may send us. What it says in redirects and token realms is a
//! stranger's word, and this process can reach things the stranger cannot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Refuses `target` if a registry at `base` has no business naming it.
pub(super) fn check_target(target: &Url, base: &Url) -> Result<(), String> {
    if !matches!(target.scheme(), "http" | "https") || target.host().is_none() {
        return Err(format!("{} is not an address to fetch from", shown(target)));
    }
    if target.host() == base.host() {
        return Ok(());
    }
    if address(target).is_some_and(is_link_local) {
        return Err(format!("{} is a link-local address", shown(target)));
    }
    if is_loopback(target) && !is_loopback(base) {
        return Err(format!(
            "{} is on this machine, the registry is not",
            shown(target)
        ));
    }
    Ok(())
}

/// Whether name, password or token may travel to `target`: encrypted, or not over a
/// wire, or to the very place that was configured to be unencrypted.
pub(super) fn may_carry_secrets(target: &Url, base: &Url) -> bool {
    target.scheme() == "https" || is_loopback(target) || same_origin(target, base)
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// This machine, by name or address. The unspecified address connects there too.
pub(super) fn is_loopback(url: &Url) -> bool {
    match address(url) {
        Some(ip) => ip.is_loopback() || ip.is_unspecified(),
        None => url.host_str().is_some_and(|host| {
            let host = host.trim_end_matches('.');
            host.eq_ignore_ascii_case("localhost")
                || host.to_ascii_lowercase().ends_with(".localhost")
        }),
    }
}

/// Link-local, where clouds keep their metadata services, and the one address of
/// such a service that is not.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

/// The host, if it is written as an address.
pub(super) fn address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(ip.to_canonical())
}

/// Without query and user: those can hold secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut clean = url.clone();
    clean.set_query(None);
    clean.set_fragment(None);
    // Fails only for URLs that cannot have a user in the first place.
    let _: Result<(), ()> = clean.set_username("");
    let _: Result<(), ()> = clean.set_password(None);
    clean.to_string()
}

/// The system's resolver, less names that lead to link-local addresses.
#[derive(Debug)]
pub(super) struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0))
                .await
                .map_err(|source| io::Error::new(source.kind(), format!("{host}: {source}")))?
                .filter(|at| !is_link_local(at.ip()))
                .collect();
            if found.is_empty() {
                return Err(format!("{host} has no address that may be used").into());
            }
            Ok::<Addrs, _>(Box::new(found.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn strangers_do_not_send_us_to_ourselves_or_to_metadata() {
        let base = url("https://registry.example/");
        for target in [
            "http://169.254.169.254/latest",
            "https://169.254.1.2/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://127.0.0.1:10255/",
            "https://localhost/",
            "https://localhost./",
            "http://a.localhost/",
            "http://0.0.0.0:8080/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "ftp://files.example/",
            "file:///etc/shadow",
        ] {
            assert!(check_target(&url(target), &base).is_err(), "{target}");
        }
        for target in [
            "https://cdn.example/x",
            "https://10.0.0.7/x",
            "http://registry.example/x",
        ] {
            assert!(check_target(&url(target), &base).is_ok(), "{target}");
        }
        let local = url("http://127.0.0.1:5000/");
        assert!(check_target(&url("http://localhost:5001/"), &local).is_ok());
        assert!(check_target(&url("http://169.254.169.254/"), &local).is_err());
    }

    #[test]
    fn secrets_travel_encrypted_or_nowhere_far() {
        let base = url("http://10.0.0.5:5000/");
        assert!(may_carry_secrets(&url("https://auth.example/token"), &base));
        assert!(may_carry_secrets(&url("http://10.0.0.5:5000/token"), &base));
        assert!(may_carry_secrets(&url("http://127.0.0.1:9/token"), &base));
        assert!(!may_carry_secrets(
            &url("http://10.0.0.5:5001/token"),
            &base
        ));
        assert!(!may_carry_secrets(&url("http://auth.example/token"), &base));
    }

    #[test]
    fn shown_addresses_hold_no_secrets() {
        assert_eq!(shown(&url("https://u:p@h.io/a?sig=1#f")), "https://h.io/a");
    }

    #[tokio::test]
    async fn a_name_for_a_link_local_address_does_not_resolve() {
        let lookup = |name: &str| GuardedResolver.resolve(name.parse().unwrap());
        assert!(lookup("localhost").await.is_ok());
        assert!(lookup("169.254.169.254").await.is_err());
    }
}
