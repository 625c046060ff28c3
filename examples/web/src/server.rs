//! A web server for one page.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::address;

/// A client that asks for more than this, or more slowly, is none of the demo's.
const MAX_REQUEST: u64 = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_CLIENTS: usize = 64;

pub(crate) struct Server {
    listener: TcpListener,
    log: Option<Mutex<File>>,
    pages: AtomicU64,
    clients: AtomicUsize,
}

impl Server {
    /// Listens on every address, of either family where the kernel has both.
    pub(crate) fn bind(port: u16, log: Option<&Path>) -> io::Result<Self> {
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = match both {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(("0.0.0.0", port))
                .map_err(|error| named(&format!("listen on port {port}"), &error))?,
        };
        let log = match log {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let fault = |error| named(&format!("open {}", path.display()), &error);
                Some(Mutex::new(file.map_err(fault)?))
            }
            None => None,
        };
        let (pages, clients) = (AtomicU64::new(0), AtomicUsize::new(0));
        Ok(Self {
            listener,
            log,
            pages,
            clients,
        })
    }

    pub(crate) fn run(self) -> io::Result<()> {
        let port = self.listener.local_addr()?.port();
        say(&format!(
            "serving on port {port} as {}",
            address::hostname()
        ));
        let server = Arc::new(self);
        loop {
            // A client that is gone before we take it is no reason to end.
            let Ok((stream, peer)) = server.listener.accept() else {
                continue;
            };
            if server.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
                server.clients.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let server = Arc::clone(&server);
            thread::spawn(move || {
                // The client's trouble, and the client knows.
                drop(server.answer(stream, peer));
                server.clients.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    fn answer(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = read_head(&stream)?;
        let (status, body) = self.page(&request);
        let line = format!("{} \"{request}\" {status}", peer.ip().to_canonical());
        say(&line);
        if let Some(log) = &self.log
            && let Ok(mut log) = log.lock()
        {
            writeln!(log, "{line}")?;
        }
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            _ => "Bad Request",
        };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let body = if request.starts_with("HEAD ") {
            ""
        } else {
            &body
        };
        stream.write_all(format!("{head}{body}").as_bytes())
    }

    fn page(&self, request: &str) -> (u16, String) {
        let mut words = request.split(' ');
        match (words.next(), words.next()) {
            (Some("GET" | "HEAD"), Some("/healthz")) => (200, "ok\n".to_owned()),
            (Some("GET" | "HEAD"), Some("/")) => {
                let count = self.pages.fetch_add(1, Ordering::Relaxed) + 1;
                let (name, ip) = (address::hostname(), address::pod_ip());
                (
                    200,
                    format!("hello from pod {name} at {ip}, request {count}\n"),
                )
            }
            (Some("GET" | "HEAD"), Some(_)) => (404, "there is only / and /healthz\n".to_owned()),
            _ => (400, "only GET and HEAD\n".to_owned()),
        }
    }
}

/// The request line; the headers after it are read and mean nothing here.
fn read_head(stream: &TcpStream) -> io::Result<String> {
    let mut reader = BufReader::new(stream.take(MAX_REQUEST));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
    }
    Ok(first
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect())
}

/// One line to stdout, at once; a server goes on without a reader.
pub(crate) fn say(line: &str) {
    drop(
        io::stdout()
            .lock()
            .write_all(format!("{line}\n").as_bytes()),
    );
}

pub(crate) fn named(doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client;

    fn start(log: Option<&Path>) -> String {
        let server = Server::bind(0, log).unwrap();
        let port = server.listener.local_addr().unwrap().port();
        thread::spawn(move || server.run());
        format!("http://127.0.0.1:{port}")
    }

    #[test]
    fn the_page_counts_and_names_the_host() {
        let url = start(None);
        let first = client::get(&format!("{url}/")).unwrap();
        assert!(first.starts_with(&format!("hello from pod {}", address::hostname())));
        assert!(first.ends_with("request 1\n"), "{first}");
        assert!(
            client::get(&format!("{url}/"))
                .unwrap()
                .ends_with("request 2\n")
        );
        assert_eq!(client::get(&format!("{url}/healthz")).unwrap(), "ok\n");
        assert!(
            client::get(&format!("{url}/x"))
                .unwrap_err()
                .to_string()
                .contains("404")
        );
    }

    #[test]
    fn each_request_is_a_line_in_the_log() {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("access.log");
        let url = start(Some(&log));
        client::get(&format!("{url}/healthz")).unwrap();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "127.0.0.1 \"GET /healthz HTTP/1.1\" 200\n"
        );
    }
}
