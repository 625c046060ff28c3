//! The way of a layer's bytes: counted, inflated by what they are, bounded, hashed.

use std::cell::Cell;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::reference::{Algorithm, Digest};

use super::limits::{Fault, Limits};

const BUFFER: usize = 64 << 10;
/// Largest zstd window, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How a layer is compressed, as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// How many bytes tell.
    pub(crate) const MAGIC: u64 = ZSTD.len() as u64;

    pub(crate) fn of(magic: &[u8]) -> Self {
        if magic.starts_with(GZIP) {
            Self::Gzip
        } else if magic == ZSTD || is_skippable(magic) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, Counted<R>>>;

/// The inflated bytes of a layer, within bounds. Which compression it is, the first
/// bytes tell: media types have been wrong before.
pub(crate) struct Inflate<R: Read> {
    decoder: Decoder<R>,
    taken: Rc<Cell<u64>>,
    given: u64,
    limits: Limits,
}

enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(zstd::Decoder<'static, Source<R>>),
}

impl<R: Read> Inflate<R> {
    pub(crate) fn open(source: R, limits: &Limits) -> io::Result<Self> {
        let taken = Rc::new(Cell::new(0));
        let mut counted = Counted {
            inner: source,
            taken: Rc::clone(&taken),
        };
        let mut magic = Vec::with_capacity(ZSTD.len());
        counted
            .by_ref()
            .take(Encoding::MAGIC)
            .read_to_end(&mut magic)?;
        let encoding = Encoding::of(&magic);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(counted));
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(source))),
            Encoding::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(decoder)
            }
            Encoding::Plain => Decoder::Plain(source),
        };
        Ok(Self {
            decoder,
            taken,
            given: 0,
            limits: limits.clone(),
        })
    }
}

/// Frames without content, which may stand before the first one with.
fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buf),
            Decoder::Gzip(decoder) => decoder.read(buf),
            Decoder::Zstd(decoder) => decoder.read(buf),
        }?;
        self.given += n as u64;
        let Limits {
            bytes,
            ratio,
            ratio_from,
            ..
        } = self.limits;
        if self.given > bytes {
            let why = format!("layer is larger than {bytes} bytes when unpacked");
            return Err(Fault::Exhausted(why).into_io());
        }
        if self.given > ratio_from && self.given / ratio > self.taken.get() {
            let why = format!("layer grows more than {ratio}-fold when unpacked");
            return Err(Fault::Corrupt(why).into_io());
        }
        Ok(n)
    }
}

struct Counted<R> {
    inner: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.taken.set(self.taken.get() + n as u64);
        Ok(n)
    }
}

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::from_hash(Algorithm::Sha256, &self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn inflate(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        Inflate::open(bytes, limits)
            .and_then(|mut inflate| inflate.read_to_end(&mut out))
            .map_err(|e| Fault::read("layer", e))?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_bytes_tell_their_compression() {
        let limits = Limits::default();
        let text = b"some text".repeat(100);
        assert_eq!(inflate(&text, &limits).unwrap(), text);
        assert_eq!(inflate(&gzip(&text), &limits).unwrap(), text);
        assert_eq!(
            inflate(&zstd::encode_all(&text[..], 1).unwrap(), &limits).unwrap(),
            text
        );
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(inflate(&two, &limits).unwrap(), b"ab");
        assert_eq!(inflate(b"", &limits).unwrap(), b"");
    }

    #[test]
    fn truncated_streams_are_corrupt() {
        let limits = Limits::default();
        let text: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let half = &whole[..whole.len() / 2];
            assert!(matches!(inflate(half, &limits), Err(Fault::Corrupt(_))));
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let zeros = vec![0; 1 << 20];
        let bomb = gzip(&zeros);
        let small = Limits {
            bytes: 1 << 19,
            ..Limits::default()
        };
        assert!(matches!(inflate(&bomb, &small), Err(Fault::Exhausted(_))));
        let thin = Limits {
            ratio_from: 1 << 16,
            ..Limits::default()
        };
        assert!(matches!(inflate(&bomb, &thin), Err(Fault::Corrupt(_))));
        assert_eq!(inflate(&bomb, &Limits::default()).unwrap(), zeros);
    }
}
