//! What a layer may cost, and the ways in which unpacking one fails.

use std::fmt::Display;
use std::io;

use crate::engine::Error;
use crate::image::LAYERS_MAX;

/// Bounds on one layer. Content comes from strangers: nothing in it may cost more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after inflating.
    pub bytes: u64,
    /// Entries, extension headers counted.
    pub entries: u64,
    /// Inflated bytes for each compressed one, looked at beyond `ratio_from` bytes.
    pub ratio: u64,
    pub ratio_from: u64,
    /// Of one image: layers, bytes of all of them compressed, and inflated.
    pub layers: usize,
    pub compressed: u64,
    pub image_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 2_000_000,
            ratio: 200,
            ratio_from: 1 << 30,
            layers: LAYERS_MAX,
            compressed: 64 << 30,
            image_bytes: 128 << 30,
        }
    }
}

impl Limits {
    /// Refuses an image for what its manifest says of its layers' sizes.
    pub(crate) fn check(
        &self,
        reference: &str,
        sizes: impl ExactSizeIterator<Item = u64>,
    ) -> Result<(), Error> {
        let over = |why: String| Err(Error::Exhausted(format!("{reference}: {why}")));
        let (count, most) = (sizes.len(), self.layers);
        if count > most {
            return over(format!("image has {count} layers, more than {most}"));
        }
        let sum = sizes.fold(0_u64, u64::saturating_add);
        if sum > self.compressed {
            let most = self.compressed;
            return over(format!(
                "layers have {sum} bytes to fetch, more than {most}"
            ));
        }
        Ok(())
    }
}

/// Longest name of an entry, and longest part of one.
pub(super) const PATH_MAX: usize = 4096;
pub(super) const NAME_MAX: usize = 255;
/// Longest extension header: the largest extended attributes fit.
pub(super) const EXTENSION_MAX: u64 = 1 << 20;
/// Bytes of names that are kept in memory until the end of a layer.
pub(super) const KEPT_NAMES: usize = 64 << 20;

/// Why a layer could not be unpacked, before it is known whose layer it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Corrupt(String),
    #[error("{0}")]
    Exhausted(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Fault {
    pub(crate) fn corrupt(why: impl Display) -> Self {
        Self::Corrupt(why.to_string())
    }

    /// Of a failed write or other call on our own files.
    pub(crate) fn io(what: impl Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if is_full(&source) {
            return Self::Exhausted(format!("{what}: {source}"));
        }
        Self::Io {
            what: what.to_string(),
            source,
        }
    }

    /// Of a failed read of the layer: what decoders say means that it is broken,
    /// what the kernel says does not.
    pub(crate) fn read(what: impl Display, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            return match source.into_inner().map(|inner| inner.downcast::<Self>()) {
                Some(Ok(fault)) => *fault,
                _ => Self::corrupt(what),
            };
        }
        if source.raw_os_error().is_some() {
            return Self::io(what, source);
        }
        Self::Corrupt(format!("{what}: {source}"))
    }

    /// To pass through a reader, and to be found again by [`Fault::read`].
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Says whose layer it is.
    pub(crate) fn of(self, reference: &str) -> Error {
        match self {
            Self::Corrupt(why) => Error::Corrupt {
                reference: reference.to_owned(),
                why,
            },
            Self::Exhausted(why) => Error::Exhausted(format!("{reference}: {why}")),
            Self::Io { what, source } => Error::Io {
                what: format!("{reference}: {what}"),
                source,
            },
        }
    }
}

/// Whether an error means that there is no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_a_reader() {
        let error = Fault::Exhausted("too big".into()).into_io();
        assert!(matches!(Fault::read("x", error), Fault::Exhausted(why) if why == "too big"));
    }

    #[test]
    fn a_full_disk_is_exhaustion_and_a_broken_stream_corruption() {
        let full = io::Error::from_raw_os_error(28);
        assert!(matches!(Fault::io("write", full), Fault::Exhausted(_)));
        let broken = io::Error::new(io::ErrorKind::InvalidData, "bad block");
        assert!(matches!(Fault::read("layer", broken), Fault::Corrupt(_)));
        let disk = io::Error::from_raw_os_error(5);
        assert!(matches!(Fault::read("layer", disk), Fault::Io { .. }));
    }
}
