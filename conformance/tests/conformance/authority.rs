//! A client that names the socket's path as `:authority`, as old grpc-go does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use carpel_conformance::Node;

use crate::checks::Outcome;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, 4.1
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal of RFC 7541, 6.2.1: the name by `lead`, the value as it is.
fn literal(lead: &[u8], value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("a short value");
    [lead, &[length], value.as_bytes()].concat()
}

fn version_call(authority: &str) -> Vec<u8> {
    let block = [
        vec![0x83, 0x86], // :method POST, :scheme http
        literal(&[0x44], "/runtime.v1.RuntimeService/Version"),
        literal(&[0x41], authority),
        literal(&[0x5f], "application/grpc"), // content-type
        literal(&[0x40, 2, b't', b'e'], "trailers"),
    ]
    .concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &block),
        frame(DATA, END_STREAM, 1, &[0; 5]),
    ]
    .concat()
}

/// The first frame on stream 1 that is no header, or what ended the connection.
fn answer(mut socket: UnixStream) -> anyhow::Result<(u8, Vec<u8>)> {
    for _ in 0..100 {
        let mut head = [0; 9];
        socket.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload)?;
        if matches!(head[3], DATA | RST_STREAM | GOAWAY) {
            return Ok((head[3], payload));
        }
    }
    anyhow::bail!("100 frames and no answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_as_authority_is_served() -> Outcome {
    let node = Node::with(&[]).await?;
    for authority in ["/run/carpel/carpel.sock", "localhost", "a b\"c"] {
        let mut socket = UnixStream::connect(node.socket())?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(&version_call(authority))?;
        let (kind, payload) = answer(socket)?;
        let text = String::from_utf8_lossy(&payload);
        assert!(
            kind == DATA && text.contains("carpel"),
            "{authority}: {kind} {text:?}"
        );
    }
    node.finish().await
}
