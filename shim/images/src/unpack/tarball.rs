//! A reader of tar archives that bounds everything an archive can make it hold.
//!
//! The `tar` crate reads extension headers whole, of any size, and splits PAX
//! records at newlines, which binary attributes have; so only its field parsers are
//! used. Sizes follow what the writers of images do: an entry that is no regular
//! file has no content.

use std::io::{self, Read};
use std::ops::Range;

use tar::Header;

use super::limits::{EXTENSION_MAX, Fault};
use super::name::shown;

const BLOCK: usize = 512;

// Where a header has its numbers.
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    Device,
    Other(u8),
}

/// What stands before an entry's content.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The archive: [`Tarball::next`] gives a member, then [`Read`] its content.
pub(crate) struct Tarball<R> {
    inner: R,
    /// Content of the current member that was not read yet, and what fills it up.
    left: u64,
    padding: u64,
    headers: u64,
    max_headers: u64,
    done: bool,
}

/// What extension headers said of the member that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(inner: R, max_headers: u64) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            headers: 0,
            max_headers,
            done: false,
        }
    }

    /// Skips the rest of the current member and reads up to the next one's content.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, Fault> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.as_old().linkflag[0] {
                b'x' => {
                    let body = self.extension(&header)?;
                    extensions.pax(&body)?;
                }
                b'g' => drop(self.extension(&header)?),
                b'L' => {
                    let name = until_nul(self.extension(&header)?);
                    extensions.path.get_or_insert(name);
                }
                b'K' => {
                    let name = until_nul(self.extension(&header)?);
                    extensions.link.get_or_insert(name);
                }
                flag => return self.member(&header, flag, extensions).map(Some),
            }
        }
    }

    /// Reads what follows the archive, which is hashed like the rest.
    pub(crate) fn finish(mut self) -> Result<R, Fault> {
        let broken = |e| Fault::read("end of the layer", e);
        io::copy(&mut self.inner, &mut io::sink()).map_err(broken)?;
        Ok(self.inner)
    }

    fn header(&mut self) -> Result<Option<Box<Header>>, Fault> {
        if self.done {
            return Ok(None);
        }
        self.skip(self.left + self.padding)?;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|b| *b == 0) {
            self.done = true;
            return match self.block()? {
                Some(next) if next.iter().any(|b| *b != 0) => {
                    Err(Fault::corrupt("archive has an empty block before its end"))
                }
                _ => Ok(None),
            };
        }
        self.headers += 1;
        if self.headers > self.max_headers {
            let why = format!("archive has more than {} entries", self.max_headers);
            return Err(Fault::Exhausted(why));
        }
        let mut header = Box::new(Header::new_old());
        header.as_mut_bytes().copy_from_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(Fault::corrupt("archive has a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    /// `None` at the end of the stream; an archive may lack its closing blocks.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Fault::corrupt("archive is cut off in a header")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::read("archive", e)),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Fault> {
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())
            .map_err(|e| Fault::read("archive", e))?;
        if skipped < bytes {
            return Err(Fault::corrupt("archive is cut off in an entry"));
        }
        Ok(())
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let size = header
            .entry_size()
            .map_err(|e| Fault::read("extension header", e))?;
        if size > EXTENSION_MAX {
            let why = format!("extension header of {size} bytes is longer than {EXTENSION_MAX}");
            return Err(Fault::Corrupt(why));
        }
        self.content(size);
        let mut body = Vec::new();
        self.read_to_end(&mut body)
            .map_err(|e| Fault::read("extension header", e))?;
        Ok(body)
    }

    fn content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn member(
        &mut self,
        header: &Header,
        flag: u8,
        extensions: Extensions,
    ) -> Result<Member, Fault> {
        let path = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let bad = |what: &str| Fault::Corrupt(format!("entry {}: {what}", shown(&path)));
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let size = match (kind, extensions.size) {
            (Kind::File | Kind::Other(_), Some(size)) => size,
            (Kind::File | Kind::Other(_), None) => {
                field(header, SIZE, Header::entry_size).map_err(|_| bad("size is no number"))?
            }
            _ => 0,
        };
        if size > i64::MAX as u64 - BLOCK as u64 {
            return Err(bad("size is out of range"));
        }
        self.content(size);
        let id = |given: Option<u64>, field: io::Result<u64>| {
            let id = given
                .map_or(field, Ok)
                .ok()
                .and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id != u32::MAX)
                .ok_or_else(|| bad("owner is out of range"))
        };
        let seconds = || {
            field(header, MTIME, Header::mtime)
                .ok()
                .and_then(|s| i64::try_from(s).ok())
                .unwrap_or(0)
        };
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        Ok(Member {
            link: extensions.link.unwrap_or_else(link),
            kind,
            mode: field(header, MODE, Header::mode).map_err(|_| bad("mode is no number"))? & 0o7777,
            uid: id(extensions.uid, field(header, UID, Header::uid))?,
            gid: id(extensions.gid, field(header, GID, Header::gid))?,
            mtime: extensions.mtime.unwrap_or_else(|| (seconds(), 0)),
            size,
            xattrs: extensions.xattrs,
            path,
        })
    }
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(Fault::corrupt("archive is cut off in an entry").into_io());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

impl Extensions {
    /// Records of the form `LENGTH KEY=VALUE\n`; the length counts the whole.
    fn pax(&mut self, mut rest: &[u8]) -> Result<(), Fault> {
        while !rest.is_empty() && rest[0] != 0 {
            let (key, value, after) =
                pax_record(rest).ok_or_else(|| Fault::corrupt("malformed PAX record"))?;
            self.set(key, value)?;
            rest = after;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|t| t.parse().ok())
                .ok_or_else(|| Fault::corrupt("PAX record is no number"))
        };
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
        } else if key.starts_with(b"GNU.sparse.") {
            return Err(Fault::corrupt("sparse entries are not supported"));
        } else if !value.is_empty() {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.mtime = pax_time(value),
                _ => {}
            }
        }
        Ok(())
    }
}

fn pax_record(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = rest.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    let record = rest.get(space + 1..length)?;
    let (b'\n', record) = record.split_last().map(|(last, init)| (*last, init))? else {
        return None;
    };
    let equals = record
        .iter()
        .position(|b| *b == b'=')
        .filter(|at| *at > 0)?;
    Some((&record[..equals], &record[equals + 1..], &rest[length..]))
}

/// Seconds with a fraction, as in `-1.25`; the fraction counts away from zero.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut nanos = 0;
    for digit in fraction.bytes().chain(std::iter::repeat(b'0')).take(9) {
        if !digit.is_ascii_digit() {
            return None;
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// A number of a header; a blank field is zero.
fn field<T: Default>(
    header: &Header,
    at: Range<usize>,
    read: impl Fn(&Header) -> io::Result<T>,
) -> io::Result<T> {
    if header.as_bytes()[at].iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(T::default());
    }
    read(header)
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}

/// Sum of the header's bytes with the sum's own field taken as blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let field = 148..156;
    let blank =
        |(at, byte): (usize, &u8)| u32::from(if field.contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(blank).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let mut length = key.len() + value.len() + 3;
        while length != key.len() + value.len() + 3 + length.to_string().len() {
            length = key.len() + value.len() + 3 + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    fn add(out: &mut Vec<u8>, flag: u8, path: &str, body: &[u8]) {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkflag[0] = flag;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        header.set_size(body.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }

    fn members(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Fault> {
        let mut tarball = Tarball::new(bytes, 100);
        let mut all = Vec::new();
        while let Some(member) = tarball.next()? {
            let mut body = Vec::new();
            tarball
                .read_to_end(&mut body)
                .map_err(|e| Fault::read("content", e))?;
            all.push((member, body));
        }
        Ok(all)
    }

    #[test]
    fn extensions_change_the_next_member_only() {
        let mut bytes = Vec::new();
        let capability = b"\x01\n\x00=\n";
        let pax = [
            record("path", b"long/name"),
            record("mtime", b"7.5"),
            record("SCHILY.xattr.security.capability", capability),
            record("size", b"3"),
        ];
        add(&mut bytes, b'x', "pax", &pax.concat());
        add(&mut bytes, b'0', "short", b"abc");
        add(&mut bytes, b'L', "././@LongLink", b"gnu/name\0");
        add(&mut bytes, b'0', "short", b"");
        add(&mut bytes, b'0', "plain", b"d");
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        let all = members(&bytes).unwrap();
        assert_eq!(all[0].0.path, b"long/name");
        assert_eq!(
            (all[0].0.mtime, &all[0].1[..]),
            ((7, 500_000_000), &b"abc"[..])
        );
        assert_eq!(
            all[0].0.xattrs,
            [(b"security.capability".to_vec(), capability.to_vec())]
        );
        assert_eq!(all[1].0.path, b"gnu/name");
        assert_eq!(
            (all[2].0.path.as_slice(), all[2].0.mtime),
            (&b"plain"[..], (5, 0))
        );
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn broken_archives_are_refused() {
        let mut good = Vec::new();
        add(&mut good, b'0', "a", b"content");
        assert!(matches!(members(&good[..600]), Err(Fault::Corrupt(_))));
        assert!(matches!(members(&good[..514]), Err(Fault::Corrupt(_))));
        assert!(matches!(members(&good[..100]), Err(Fault::Corrupt(_))));
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        assert!(matches!(members(&flipped), Err(Fault::Corrupt(_))));
        let hole = [vec![0; BLOCK], good].concat();
        assert!(matches!(members(&hole), Err(Fault::Corrupt(_))));
        for pax in [&b"5 a\n"[..], b"99 a=b\n", b"6 a=b", b"x a=b\n", b"5 =b\n"] {
            let mut bytes = Vec::new();
            add(&mut bytes, b'x', "pax", pax);
            add(&mut bytes, b'0', "a", b"");
            assert!(matches!(members(&bytes), Err(Fault::Corrupt(_))), "{pax:?}");
        }
    }

    #[test]
    fn a_huge_extension_is_refused_unread() {
        let mut bytes = Vec::new();
        add(&mut bytes, b'x', "pax", b"");
        let header: &mut [u8; BLOCK] = bytes.as_mut_slice().try_into().unwrap();
        let mut huge = Header::from_byte_slice(header).clone();
        huge.set_size(10 << 30);
        huge.set_cksum();
        let error = members(huge.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("extension header"), "{error}");
    }

    #[test]
    fn too_many_entries_exhaust() {
        let mut bytes = Vec::new();
        for i in 0..101 {
            add(&mut bytes, b'0', &i.to_string(), b"");
        }
        assert!(matches!(members(&bytes), Err(Fault::Exhausted(_))));
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(pax_time(b"1.25"), Some((1, 250_000_000)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"3"), Some((3, 0)));
        assert_eq!(pax_time(b"x"), None);
        assert_eq!(pax_time(b"1.x"), None);
    }
}
