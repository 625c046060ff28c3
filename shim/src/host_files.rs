//! Texts of the files that every container of a pod gets: pure.

use std::net::IpAddr;

use carpel_spec::intent::DnsConfig;

use crate::error::Error;

/// `/etc/resolv.conf`: what the pod asks for, else what the host has.
pub(crate) fn resolv_conf(dns: Option<&DnsConfig>, of_host: &str) -> Result<String, Error> {
    let Some(dns) = dns else {
        return Ok(of_host.to_owned());
    };
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return Ok(of_host.to_owned());
    }
    let mut text = String::new();
    for server in &dns.servers {
        text += &format!("nameserver {}\n", word("servers", server)?);
    }
    for (keyword, field, values) in [
        ("search", "searches", &dns.searches),
        ("options", "options", &dns.options),
    ] {
        if !values.is_empty() {
            let words: Vec<&str> = values
                .iter()
                .map(|value| word(field, value))
                .collect::<Result<_, _>>()?;
            text += &format!("{keyword} {}\n", words.join(" "));
        }
    }
    Ok(text)
}

/// `/etc/hosts`: loopback, and the pod's name for each of its addresses.
pub(crate) fn hosts(hostname: &str, addresses: &[IpAddr]) -> Result<String, Error> {
    let name = host_name(hostname)?;
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        text += &format!("{address}\t{name}\n");
    }
    Ok(text)
}

/// `/etc/hostname`
pub(crate) fn hostname(hostname: &str) -> Result<String, Error> {
    Ok(format!("{}\n", host_name(hostname)?))
}

fn host_name(name: &str) -> Result<&str, Error> {
    single("config.hostname", name)
}

fn word<'a>(field: &str, value: &'a str) -> Result<&'a str, Error> {
    single(&format!("config.dns_config.{field}"), value)
}

/// One word of one line: more would add lines of the client's making.
fn single<'a>(field: &str, value: &'a str) -> Result<&'a str, Error> {
    if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::Invalid(format!(
            "{field}: {value:?} is not one printable word"
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{hostname, hosts, resolv_conf};
    use carpel_spec::intent::DnsConfig;

    #[test]
    fn the_pods_own_resolver_is_written_line_by_line() {
        let dns = DnsConfig {
            servers: vec!["10.10.10.10".into(), "::1".into()],
            searches: vec!["google.com".into(), "a.b".into()],
            options: vec!["ndots:8".into()],
        };
        assert_eq!(
            resolv_conf(Some(&dns), "nameserver 9.9.9.9\n").unwrap(),
            "nameserver 10.10.10.10\nnameserver ::1\nsearch google.com a.b\noptions ndots:8\n"
        );
    }

    #[test]
    fn without_one_the_hosts_is_kept() {
        let host = "nameserver 9.9.9.9\n";
        assert_eq!(resolv_conf(None, host).unwrap(), host);
        assert_eq!(
            resolv_conf(Some(&DnsConfig::default()), host).unwrap(),
            host
        );
    }

    #[test]
    fn the_pods_name_stands_at_each_of_its_addresses() {
        let text = hosts("web", &["10.88.0.2".parse().unwrap()]).unwrap();
        assert!(text.contains("127.0.0.1\tlocalhost\n") && text.ends_with("10.88.0.2\tweb\n"));
        assert_eq!(hostname("web").unwrap(), "web\n");
    }

    #[test]
    fn nobody_smuggles_in_a_line() {
        for bad in ["a\nnameserver 6.6.6.6", "a b", "", "a\0"] {
            let dns = DnsConfig {
                options: vec![bad.into()],
                ..DnsConfig::default()
            };
            assert!(resolv_conf(Some(&dns), "").is_err(), "{bad:?}");
            assert!(hosts(bad, &[]).is_err(), "{bad:?}");
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
