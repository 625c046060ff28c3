//! One layer, entry by entry; also such entries as an honest builder never makes.

use std::collections::BTreeSet;

use tar::{Builder, EntryType, Header};

/// A tar stream in the making; owners and modes are what the caller says, whoever runs it.
pub struct Layer {
    tar: Builder<Vec<u8>>,
    seen: BTreeSet<String>,
    /// Of entries from here on.
    owner: (u64, u64),
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Layer")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            tar: Builder::new(Vec::new()),
            seen: BTreeSet::new(),
            owner: (0, 0),
        }
    }
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries from here on belong to this user and group.
    #[must_use]
    pub fn owned_by(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// A directory, with those above it.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.parents(path);
        self.directory_entry(path, mode);
        self
    }

    /// A file of root's, with the directories above it.
    #[must_use]
    pub fn file(mut self, path: &str, data: &[u8], mode: u32) -> Self {
        self.parents(path);
        self.seen.insert(path.to_owned());
        self.append(path, "", EntryType::Regular, mode, data);
        self
    }

    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.parents(path);
        self.append(path, target, EntryType::Symlink, 0o777, &[]);
        self
    }

    #[must_use]
    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        self.append(path, target, EntryType::Link, 0o755, &[]);
        self
    }

    /// A character device with the given numbers.
    #[must_use]
    pub fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(EntryType::Char, 0o666, 0);
        set_name(&mut header, path);
        header.set_device_major(major).expect("a ustar header");
        header.set_device_minor(minor).expect("a ustar header");
        self.write(header, &[]);
        self
    }

    /// A file whose name is written as it is, whatever stands in it.
    #[must_use]
    pub fn raw_file(mut self, path: &str, data: &[u8]) -> Self {
        self.append(path, "", EntryType::Regular, 0o644, data);
        self
    }

    pub fn has(&self, path: &str) -> bool {
        self.seen.contains(path)
    }

    /// The tar stream.
    pub fn finish(self) -> Vec<u8> {
        self.tar
            .into_inner()
            .expect("writing to memory cannot fail")
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.directory_entry(&path[..end], 0o755);
        }
    }

    fn directory_entry(&mut self, path: &str, mode: u32) {
        if !path.is_empty() && self.seen.insert(path.to_owned()) {
            self.append(path, "", EntryType::Directory, mode, &[]);
        }
    }

    pub(super) fn append(
        &mut self,
        path: &str,
        link: &str,
        kind: EntryType,
        mode: u32,
        data: &[u8],
    ) {
        let mut header = header(kind, mode, data.len());
        set_name(&mut header, path);
        let field = &mut header.as_old_mut().linkname;
        field[..link.len()].copy_from_slice(link.as_bytes());
        self.write(header, data);
    }

    pub(super) fn write(&mut self, mut header: Header, data: &[u8]) {
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_cksum();
        self.tar
            .append(&header, data)
            .expect("writing to memory cannot fail");
    }
}

pub(super) fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

/// Not checked, unlike the crate's own setter.
pub(super) fn set_name(header: &mut Header, path: &str) {
    assert!(path.len() <= 100, "{path} is too long for a test");
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::Layer;

    #[test]
    fn entries_keep_what_they_were_given() {
        let bytes = Layer::new()
            .file("a/b/c", b"data", 0o4755)
            .hard_link("d", "a/b/c")
            .raw_file("../out", b"")
            .device("null", 1, 3)
            .finish();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                (name, entry.header().mode().unwrap())
            })
            .collect();
        let expected = [
            ("a", 0o755),
            ("a/b", 0o755),
            ("a/b/c", 0o4755),
            ("d", 0o755),
            ("../out", 0o644),
            ("null", 0o666),
        ];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
