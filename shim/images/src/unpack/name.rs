//! Names of entries: cleaned, or refused.

use super::limits::{Fault, NAME_MAX, PATH_MAX};

/// An entry's name below the root, free of `.`, `..`, and slashes too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    path: Vec<u8>,
    /// Where the last part begins.
    base: usize,
}

impl Name {
    /// An absolute name is refused: no layer needs one, and a reader that takes it
    /// literally writes to the host.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Fault> {
        let refuse = |why: &str| Fault::Corrupt(format!("entry {}: {why}", shown(raw)));
        if raw.is_empty() {
            return Err(refuse("name is empty"));
        }
        if raw.len() > PATH_MAX {
            return Err(refuse("name is longer than 4096 bytes"));
        }
        if raw.contains(&0) {
            return Err(refuse("name has a NUL byte"));
        }
        let mut path = Vec::with_capacity(raw.len());
        let mut base = 0;
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(refuse("name has '..'")),
                _ if part.len() > NAME_MAX => {
                    return Err(refuse("part of the name is longer than 255 bytes"));
                }
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            base = path.len();
            path.extend_from_slice(part);
        }
        if raw[0] == b'/' && !path.is_empty() {
            return Err(refuse("name is absolute"));
        }
        Ok(Self { path, base })
    }

    /// What a hard link names: some tools write it as seen from the root.
    pub(super) fn parse_target(raw: &[u8]) -> Result<Self, Fault> {
        let slashes = raw.iter().take_while(|b| **b == b'/').count();
        Self::parse(&raw[slashes..])
    }

    pub(super) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn base(&self) -> &[u8] {
        &self.path[self.base..]
    }

    /// Path of the directory that it lies in; empty for the root.
    pub(super) fn parent(&self) -> &[u8] {
        &self.path[..self.base.saturating_sub(1)]
    }
}

/// A name without what does not belong in it, or an error.
pub(crate) fn clean_name(raw: &[u8]) -> Result<Vec<u8>, Fault> {
    Ok(Name::parse(raw)?.path)
}

/// For messages: escaped, and not endless.
pub(super) fn shown(raw: &[u8]) -> String {
    const SHOWN: usize = 200;
    let cut = if raw.len() > SHOWN { "…" } else { "" };
    format!("\"{}\"{cut}", raw[..raw.len().min(SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(raw: &str) -> (String, String) {
        let name = Name::parse(raw.as_bytes()).unwrap();
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        (text(name.parent()), text(name.base()))
    }

    #[test]
    fn names_become_relative_and_clean() {
        assert_eq!(parts("a"), (String::new(), "a".into()));
        assert_eq!(parts("./a//b/./c/"), ("a/b".into(), "c".into()));
        assert!(Name::parse(b"./").unwrap().is_root());
        assert!(Name::parse(b"/").unwrap().is_root());
    }

    #[test]
    fn bad_names_are_refused_and_named() {
        let long = vec![b'a'; 256];
        let longer = vec![b'/'; 4097];
        for raw in [
            &b""[..],
            b"..",
            b"a/../b",
            b"/..",
            b"/etc/passwd",
            b"///etc/passwd",
            b"a/..",
            b"a\0b",
            &long,
            &longer,
        ] {
            assert!(
                matches!(Name::parse(raw), Err(Fault::Corrupt(_))),
                "{raw:?}"
            );
        }
        let error = Name::parse(b"x\n/../y").unwrap_err().to_string();
        assert!(error.contains(r"x\n/../y"), "{error}");
        assert!(Name::parse(b"...").is_ok());
    }
}
