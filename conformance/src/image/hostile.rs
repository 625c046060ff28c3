//! Entries that no builder of images makes by itself.

use tar::{EntryType, Header};

use super::Layer;
use super::layer::{header, set_name};

impl Layer {
    /// What the entry after this one shall be in spite of its header: names of any
    /// length, attributes, numbers.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend_from_slice(&record(key, value));
        }
        self.entry(b'x', "pax", "", 0o644, &body)
    }

    /// A directory under a name of any length.
    #[must_use]
    pub fn long_directory(self, path: &str) -> Self {
        self.pax(&[("path", path.as_bytes())])
            .entry(b'5', "long", "", 0o755, &[])
    }

    /// A symbolic link to a target of any length.
    #[must_use]
    pub fn long_symlink(self, path: &str, target: &str) -> Self {
        self.pax(&[("linkpath", target.as_bytes())])
            .entry(b'2', path, "long", 0o777, &[])
    }

    /// An entry of any type, with no directories above it.
    #[must_use]
    pub fn entry(mut self, kind: u8, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        self.append(path, link, EntryType::new(kind), mode, data);
        self
    }

    /// A header that promises `size` bytes, of which none come.
    #[must_use]
    pub fn promise(mut self, kind: u8, path: &str, size: u64) -> Self {
        let mut header: Header = header(EntryType::new(kind), 0o644, 0);
        set_name(&mut header, path);
        header.set_size(size);
        self.write(header, &[]);
        self
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::Layer;

    #[test]
    fn names_may_be_long_and_sizes_untrue() {
        let long = "d/".repeat(300);
        let bytes = Layer::new()
            .long_directory(&long)
            .long_symlink("l", &long)
            .promise(b'0', "promised", 10 << 30)
            .finish();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let first = entries.next().unwrap().unwrap();
        assert_eq!(first.path_bytes(), long.as_bytes());
        let second = entries.next().unwrap().unwrap();
        assert_eq!(&*second.link_name_bytes().unwrap(), long.as_bytes());
        let third = entries.next().unwrap().unwrap();
        assert_eq!(third.header().size().unwrap(), 10 << 30);
    }
}
