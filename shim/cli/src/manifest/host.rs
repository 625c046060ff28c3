//! What a pod inherits from this host.

use std::fs;
use std::io::ErrorKind;

use super::model::Dns;
use crate::error::{Doing, Result};

/// Name servers of the host; a host without resolv.conf has none.
pub(crate) fn dns() -> Result<Dns> {
    match fs::read_to_string("/etc/resolv.conf") {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Dns::default()),
        text => Ok(parse_resolv(&text.doing("read /etc/resolv.conf")?)),
    }
}

/// Memory of the host in bytes.
pub(crate) fn memory() -> Result<i64> {
    let text = fs::read_to_string("/proc/meminfo").doing("read /proc/meminfo")?;
    Ok(parse_memory(&text))
}

fn parse_resolv(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            // The last one holds.
            Some("search" | "domain") => dns.searches = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

fn parse_memory(text: &str) -> i64 {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let dns = parse_resolv(
            "# x\nnameserver 10.0.0.1 # first\nnameserver ::1\nsearch a b\nsearch c\noptions ndots:2 \
             rotate\n",
        );
        assert_eq!(dns.servers, ["10.0.0.1", "::1"]);
        assert_eq!(dns.searches, ["c"]);
        assert_eq!(dns.options, ["ndots:2", "rotate"]);
    }

    #[test]
    fn meminfo() {
        assert_eq!(
            parse_memory("MemTotal:   1024 kB\nMemFree: 1 kB\n"),
            1 << 20
        );
        assert_eq!(parse_memory(""), 0);
    }
}
