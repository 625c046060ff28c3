//! Whiteouts: names by which a layer says what of the layers below is gone.

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// Nothing of the directory that it lies in shows through from below.
    Opaque,
    /// This name is gone.
    Gone(&'a [u8]),
    /// Bookkeeping of an old union file system, of no meaning here.
    Bookkeeping,
    /// Claims to be one of something that cannot be.
    Malformed,
}

/// `None`: an ordinary name.
pub(super) fn parse(base: &[u8]) -> Option<Whiteout<'_>> {
    if base == OPAQUE {
        return Some(Whiteout::Opaque);
    }
    if base.starts_with(META) {
        return Some(Whiteout::Bookkeeping);
    }
    Some(match base.strip_prefix(PREFIX)? {
        b"" | b"." | b".." => Whiteout::Malformed,
        name => Whiteout::Gone(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(parse(b"a"), None);
        assert_eq!(parse(b"x.wh.a"), None);
        assert_eq!(parse(b".wh.a"), Some(Whiteout::Gone(b"a")));
        assert_eq!(parse(b".wh..a"), Some(Whiteout::Gone(b".a")));
        assert_eq!(parse(b".wh..wh..opq"), Some(Whiteout::Opaque));
        assert_eq!(parse(b".wh..wh.plnk"), Some(Whiteout::Bookkeeping));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(parse(bad), Some(Whiteout::Malformed));
        }
    }
}
