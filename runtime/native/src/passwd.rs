//! Home directories, from a file that an image wrote.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use carpel_sys::mount;
use carpel_sys::openat2::{self, OFlags};

/// More than any real file has.
const MAX_BYTES: u64 = 10 << 20;

/// The home directory of a user by the `/etc/passwd` below `root`; `/` if that
/// says nothing, or is anything but a regular file of sane size.
pub(crate) fn home_of(root: BorrowedFd<'_>, uid: u32) -> Vec<u8> {
    read(root)
        .and_then(|text| find(&text, uid))
        .unwrap_or_else(|| b"/".to_vec())
}

fn read(root: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let path = "etc/passwd";
    // Looked at before it is opened: opening a device can do things.
    let place = openat2::open_in_root(root, path, OFlags::PATH, 0).ok()?;
    // Files of procfs are regular, and some take away what they tell.
    let proc = mount::is_procfs(&place).ok()?;
    let kind = File::from(place).metadata().ok()?.file_type();
    if proc || !kind.is_file() {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat2::open_in_root(root.as_fd(), path, flags, 0).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

fn find(text: &[u8], uid: u32) -> Option<Vec<u8>> {
    let uid = uid.to_string();
    let home = text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.nth(2)? == uid.as_bytes()).then(|| fields.nth(2))?
    })?;
    // A NUL cannot be handed to a program, and nothing relative is a home.
    (home.starts_with(b"/") && !home.contains(&0)).then(|| home.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    const TEXT: &[u8] =
        b"root:x:0:0::/root:/bin/sh\nodd:x:07:7::/odd:\nhalf:x:8\nweb:x:7:7::/srv/\xff:\n";

    #[test]
    fn the_sixth_field_of_the_users_line() {
        assert_eq!(find(TEXT, 0).unwrap(), b"/root");
        assert_eq!(find(TEXT, 7).unwrap(), b"/srv/\xff");
        assert_eq!(find(TEXT, 8), None);
        assert_eq!(find(b"a:x:1:1::home:", 1), None);
    }

    #[test]
    fn devices_pipes_and_giants_are_not_read() {
        let dir = tempdir("passwd");
        let root: OwnedFd = File::open(&dir).unwrap().into();
        let path = dir.join("etc/passwd");
        std::fs::create_dir(dir.join("etc")).unwrap();
        assert_eq!(home_of(root.as_fd(), 0), b"/");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(home_of(root.as_fd(), 0), b"/");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(home_of(root.as_fd(), 0), b"/");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, TEXT).unwrap();
        assert_eq!(home_of(root.as_fd(), 0), b"/root");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(2 << 30)
            .unwrap();
        assert_eq!(home_of(root.as_fd(), 0), b"/");
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("native-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
