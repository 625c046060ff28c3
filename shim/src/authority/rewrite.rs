//! HTTP/2 frames in, the same frames out, with a well-formed `:authority`. No I/O.
//!
//! The value keeps its length: the dynamic table of HPACK (RFC 7541) then has entries
//! of the same size on both sides, and later references to it stay right.

use httlib_huffman::DecoderSpeed;

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Static table, entry 1 (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
/// Of frames that a peer may send before it is allowed more (RFC 9113, 6.5.2).
const FRAME_SIZE: usize = 16_384;
/// Larger header blocks go through as they are: the library has its own limit.
const LARGEST_BLOCK: usize = 64 << 10;

/// One direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    /// What was taken and not given yet: less than a frame header, or a header block.
    held: Vec<u8>,
    preface_seen: usize,
    /// Payload of an ordinary frame that still goes through.
    passing: usize,
    /// Something did not parse: from here on everything goes through untouched.
    gave_up: bool,
}

impl Rewriter {
    /// Takes the next bytes of the client, appends to `out` what the server may see.
    pub(super) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        let preface = input.len().min(PREFACE - self.preface_seen);
        out.extend(&input[..preface]);
        self.preface_seen += preface;
        input = &input[preface..];
        self.held.extend(input);
        loop {
            if self.gave_up {
                out.append(&mut self.held);
                return;
            }
            let pass = self.passing.min(self.held.len());
            out.extend(self.held.drain(..pass));
            self.passing -= pass;
            if self.passing > 0 || self.held.len() < FRAME_HEADER {
                return;
            }
            if self.held[3] != HEADERS {
                self.passing = FRAME_HEADER + length(&self.held);
                continue;
            }
            match self.take_headers() {
                Taken::More => return,
                Taken::Frames(frames) => out.extend(frames),
                Taken::Unknown => self.gave_up = true,
            }
        }
    }

    /// A HEADERS frame with all its CONTINUATIONs, if they are all here.
    fn take_headers(&mut self) -> Taken {
        let mut at = 0;
        let mut block = Vec::new();
        loop {
            let Some(frame) = self
                .held
                .get(at..)
                .filter(|rest| rest.len() >= FRAME_HEADER)
            else {
                return Taken::More;
            };
            let end = FRAME_HEADER + length(frame);
            let (kind, flags) = (frame[3], frame[4]);
            if at > 0 && kind != CONTINUATION || end > LARGEST_BLOCK {
                return Taken::Unknown;
            }
            let Some(payload) = frame.get(FRAME_HEADER..end) else {
                return Taken::More;
            };
            let part = if at == 0 {
                unpadded(payload, flags)
            } else {
                Some(payload)
            };
            let Some(part) = part else {
                return Taken::Unknown;
            };
            block.extend(part);
            at += end;
            if block.len() > LARGEST_BLOCK {
                return Taken::Unknown;
            }
            if flags & END_HEADERS != 0 {
                break;
            }
        }
        let first: Vec<u8> = self.held[..FRAME_HEADER].to_vec();
        let Some(block) = rewrite_block(&block) else {
            // Nothing to change: the frames as they came.
            return Taken::Frames(self.held.drain(..at).collect());
        };
        self.held.drain(..at);
        Taken::Frames(frames(&first, &block))
    }
}

enum Taken {
    More,
    Frames(Vec<u8>),
    Unknown,
}

fn length(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}

/// The header block in a HEADERS payload: without padding and priority.
fn unpadded(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, rest) = match flags & PADDED {
        0 => (0, payload),
        _ => (usize::from(*payload.first()?), payload.get(1..)?),
    };
    let rest = if flags & PRIORITY != 0 {
        rest.get(5..)?
    } else {
        rest
    };
    rest.get(..rest.len().checked_sub(padding)?)
}

/// A header block as frames of the stream, and with the END_STREAM, of `first`.
fn frames(first: &[u8], block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + FRAME_HEADER);
    let parts: Vec<&[u8]> = block.chunks(FRAME_SIZE).collect();
    for (i, part) in parts.iter().enumerate() {
        let kind = if i == 0 { HEADERS } else { CONTINUATION };
        let kept = if i == 0 {
            first[4] & !(PADDED | PRIORITY | END_HEADERS)
        } else {
            0
        };
        let last = if i + 1 == parts.len() { END_HEADERS } else { 0 };
        let [.., a, b, c] = part.len().to_be_bytes();
        out.extend([a, b, c, kind, kept | last]);
        out.extend(&first[5..FRAME_HEADER]);
        out.extend(*part);
    }
    out
}

/// The block with a changed authority, or None if it needs none or does not parse.
fn rewrite_block(block: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader {
        bytes: block,
        at: 0,
    };
    while reader.at < block.len() {
        let start = reader.at;
        let lead = block[start];
        // Bits of the index in the first byte, by representation (RFC 7541, 6).
        let (bits, literal) = match lead {
            lead if lead & 0x80 != 0 => (7, false),
            lead if lead & 0x40 != 0 => (6, true),
            lead if lead & 0x20 != 0 => (5, false),
            _ => (4, true),
        };
        let index = reader.integer(bits)?;
        if !literal {
            continue;
        }
        let is_authority = if index == 0 {
            reader.string()? == b":authority"
        } else {
            index == AUTHORITY
        };
        let value_at = reader.at;
        let value = reader.string()?;
        if !is_authority {
            continue;
        }
        let fixed: Vec<u8> = value.iter().map(|byte| allowed(*byte)).collect();
        if fixed == value {
            return None;
        }
        let mut out = block[..value_at].to_vec();
        put_integer(&mut out, 7, fixed.len());
        out.extend(fixed);
        out.extend(&block[reader.at..]);
        return Some(out);
    }
    None
}

/// What may stand in a host name, and a hyphen for the rest.
fn allowed(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte) {
        byte
    } else {
        b'-'
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// RFC 7541, 5.1
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Some(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// RFC 7541, 5.2
    fn string(&mut self) -> Option<Vec<u8>> {
        let huffman = *self.bytes.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let raw = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        if !huffman {
            return Some(raw.to_vec());
        }
        let mut text = Vec::new();
        httlib_huffman::decode(raw, &mut text, DecoderSpeed::FourBits).ok()?;
        Some(text)
    }
}

/// RFC 7541, 5.1, with the bits above the prefix zero.
fn put_integer(out: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1usize << bits) - 1;
    let low = |value: usize| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    if value < most {
        out.push(low(value));
        return;
    }
    out.push(low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(low(rest & 0x7f | 0x80));
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, Rewriter};

    const PATH: &str = "/run/carpel/carpel.sock";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [.., a, b, c] = payload.len().to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    fn string(text: &str, huffman: bool) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        if huffman {
            bytes.clear();
            httlib_huffman::encode(text.as_bytes(), &mut bytes).unwrap();
        }
        let mut out = vec![u8::try_from(bytes.len()).unwrap() | if huffman { 0x80 } else { 0 }];
        out.extend(bytes);
        out
    }

    /// `:method POST`, an authority, a literal header of the client's own.
    fn block(authority: &str, huffman: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x41];
        block.extend(string(authority, huffman));
        block.push(0x40);
        block.extend(string("user-agent", true));
        block.extend(string("/a/b", false));
        block
    }

    fn rewrite(input: &[u8], chunk: usize) -> Vec<u8> {
        let mut rewriter = Rewriter::default();
        let mut out = Vec::new();
        for part in input.chunks(chunk) {
            rewriter.push(part, &mut out);
        }
        out
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b'P'; PREFACE];
        bytes.extend(frames.concat());
        bytes
    }

    #[test]
    fn a_path_becomes_a_name_of_the_same_length_however_it_comes() {
        let name = PATH.replace('/', "-");
        for huffman in [false, true] {
            let data = frame(0, 1, b"body /run/x");
            let settings = frame(4, 0, &[]);
            let input = connection(&[
                settings.clone(),
                frame(1, 4, &block(PATH, huffman)),
                data.clone(),
            ]);
            let expected = connection(&[settings, frame(1, 4, &block(&name, false)), data]);
            for chunk in [1, 2, 7, 1000] {
                assert_eq!(rewrite(&input, chunk), expected, "{huffman} {chunk}");
            }
        }
    }

    #[test]
    fn a_good_authority_goes_through_byte_for_byte() {
        for good in ["localhost", "127.0.0.1:80", "[::1]:80"] {
            let input = connection(&[frame(1, 5, &block(good, true)), frame(0, 1, b"x")]);
            assert_eq!(rewrite(&input, 3), input);
        }
    }

    #[test]
    fn padding_and_priority_go_and_continuations_are_joined() {
        let whole = block(PATH, true);
        let (one, two) = whole.split_at(9);
        let mut padded = vec![3, 0, 0, 0, 0, 16];
        padded.extend(one);
        padded.extend([0; 3]);
        let input = connection(&[frame(1, 0x28 | 1, &padded), frame(9, 4, two)]);
        let name = PATH.replace('/', "-");
        assert_eq!(
            rewrite(&input, 5),
            connection(&[frame(1, 5, &block(&name, false))])
        );
    }

    #[test]
    fn what_does_not_parse_goes_through() {
        let input = connection(&[frame(1, 0, &[0x41]), frame(0, 0, b"no continuation")]);
        assert_eq!(rewrite(&input, 4), input);
        let cut = connection(&[frame(1, 4, &[0x41, 0x7f])]);
        assert_eq!(rewrite(&cut, 4), cut);
    }
}
