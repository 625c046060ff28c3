//! Takes the members of an image archive that an image may be made of.
//!
//! The archive is read once, front to back, and nothing in it decides where a file
//! goes: content lands in temporary files that are known by the digest they turned
//! out to have. Links are never followed, since there is nothing to follow.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::engine::Error;
use crate::reference::{Algorithm, Digest};
use crate::store::{Inner, Temp};
use crate::unpack::{Fault, Inflate, Kind, Tarball, clean_name};

use super::load::corrupt;

/// Members kept of one archive, and how large a JSON document may be.
const MEMBERS_MAX: usize = 20_000;
const DOCUMENT_MAX: u64 = 16 << 20;
const BUFFER: usize = 128 << 10;

const BLOBS: &str = "blobs/sha256/";

/// What came out of an archive.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// Digest of each member, by its name.
    digests: HashMap<String, Digest>,
    files: HashMap<Digest, (Temp, u64)>,
    links: HashSet<String>,
}

impl Spool {
    pub(super) fn read(inner: &Inner, archive: impl Read) -> Result<Self, Error> {
        let fault = |fault: Fault| fault.of("archive");
        let limits = &inner.config.limits;
        let inflate =
            Inflate::open(archive, limits).map_err(|e| fault(Fault::read("archive", e)))?;
        let mut tarball = Tarball::new(inflate, limits.entries);
        let mut spool = Self::default();
        while let Some(member) = tarball.next().map_err(fault)? {
            let name = clean_name(&member.path).map_err(fault)?;
            let Ok(name) = String::from_utf8(name) else {
                continue;
            };
            if !is_wanted(&name) {
                continue;
            }
            if spool.digests.len() + spool.links.len() >= MEMBERS_MAX {
                let why = format!("archive has more than {MEMBERS_MAX} files");
                return Err(Error::Exhausted(why));
            }
            match member.kind {
                Kind::File => spool.file(inner, name, &mut tarball)?,
                Kind::Directory => {}
                _ => {
                    spool.links.insert(name);
                }
            }
        }
        Ok(spool)
    }

    fn file(&mut self, inner: &Inner, name: String, content: &mut impl Read) -> Result<(), Error> {
        let (temp, mut file) = inner.layout.temp_file("archive")?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Fault::read(format_args!("file {name:?}"), e).of("archive")),
            };
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n])
                .map_err(|e| Fault::io("write temporary file", e).of("archive"))?;
            size += n as u64;
        }
        let digest = Digest::from_hash(Algorithm::Sha256, &hash.finalize());
        if let Some(hex) = name.strip_prefix(BLOBS)
            && hex != digest.hex()
        {
            return Err(corrupt(format!("file {name:?} has the digest {digest}")));
        }
        self.digests.insert(name, digest.clone());
        self.files.entry(digest).or_insert((temp, size));
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.digests.contains_key(name)
    }

    /// The digest and size of a member.
    pub(super) fn find(&self, name: &str) -> Result<(Digest, u64), Error> {
        match self.digests.get(name) {
            Some(digest) => Ok((digest.clone(), self.size(digest))),
            None if self.links.contains(name) => {
                Err(corrupt(format!("{name:?} is a link or device, not a file")))
            }
            None => Err(corrupt(format!("there is no file {name:?}"))),
        }
    }

    /// Checks that a blob is there, by its digest.
    pub(super) fn blob(&self, digest: &Digest) -> Result<u64, Error> {
        let (found, size) = self.find(&blob_name(digest))?;
        debug_assert_eq!(found, *digest);
        Ok(size)
    }

    fn size(&self, digest: &Digest) -> u64 {
        self.files.get(digest).map_or(0, |(_, size)| *size)
    }

    /// A whole JSON document by its name.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (digest, size) = self.find(name)?;
        if size > DOCUMENT_MAX {
            return Err(corrupt(format!(
                "{name:?} is larger than {DOCUMENT_MAX} bytes"
            )));
        }
        let Some((temp, _)) = self.files.get(&digest) else {
            return Err(corrupt(format!("there is no file {name:?}")));
        };
        std::fs::read(temp.path()).map_err(|e| Fault::io("read temporary file", e).of("archive"))
    }

    /// Moves a member into the store's blobs; one that is there may be rotten.
    pub(super) fn keep(&mut self, inner: &Inner, digest: &Digest) -> Result<(), Error> {
        match self.files.remove(digest) {
            Some((temp, _)) => inner.add_blob(digest, temp),
            None => Ok(()),
        }
    }
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The names that images are made of; whatever else is in the archive is skipped.
fn is_wanted(name: &str) -> bool {
    let json_or_tar = || {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        matches!(extension, Some("json" | "tar")) && name.matches('/').count() <= 1
    };
    name.starts_with(BLOBS) || json_or_tar()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_images_are_made_of_is_taken() {
        for name in [
            "index.json",
            "manifest.json",
            "blobs/sha256/00",
            "abc.json",
            "abc/layer.tar",
        ] {
            assert!(is_wanted(name), "{name}");
        }
        for name in [
            "oci-layout",
            "repositories",
            "abc/VERSION",
            "a/b/c.json",
            "blobs/md5/00",
        ] {
            assert!(!is_wanted(name), "{name}");
        }
    }
}
