//! Fetches a page, so that an image without a shell can ask itself.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 1 << 20;

/// Prints the body of a page.
pub(crate) fn print(url: &str) -> io::Result<()> {
    let body = get(url)?;
    io::stdout().lock().write_all(body.as_bytes())
}

/// The body of a page; an answer other than 200 is an error.
pub(crate) fn get(url: &str) -> io::Result<String> {
    let (address, path) = parse(url)
        .ok_or_else(|| io::Error::other(format!("{url:?} is not http://ADDRESS[:PORT]/PATH")))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| crate::server::named(&format!("connect to {address}"), &error))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{url} answers {first:?}")));
    }
    Ok(body.to_owned())
}

/// Addresses only: a static binary has no resolver to rely on.
fn parse(url: &str) -> Option<(SocketAddr, &str)> {
    let rest = url.strip_prefix("http://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let path = if path.is_empty() { "/" } else { path };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return Some((address, path));
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port.parse().ok()?),
        _ => (host, 80),
    };
    let ip = match name {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        text => text.trim_matches(['[', ']']).parse().ok()?,
    };
    Some((SocketAddr::new(ip, port), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parsed = |url| parse(url).map(|(address, path)| (address.to_string(), path));
        let is = |address: &str, path| Some((address.to_owned(), path));
        assert_eq!(parsed("http://10.0.0.2/"), is("10.0.0.2:80", "/"));
        assert_eq!(
            parsed("http://localhost:8080/healthz"),
            is("127.0.0.1:8080", "/healthz")
        );
        assert_eq!(parsed("http://[::1]:81"), is("[::1]:81", "/"));
        assert_eq!(parsed("http://[fd00::2]/"), is("[fd00::2]:80", "/"));
        for bad in [
            "https://1.2.3.4/",
            "1.2.3.4",
            "http://a.b/",
            "http://1.2.3.4:x/",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
