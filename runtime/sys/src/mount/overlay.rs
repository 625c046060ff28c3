//! Overlay mounts out of layer directories.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::{Attr, Flags, FsContext, clone_tree, set_attr};

/// The longest value that `fsconfig` takes as a string, without its NUL.
const FSCONFIG_MAX: usize = 255;

/// The writable part of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    pub dir: &'a Path,
    /// Empty directory on the same file system as `dir`.
    pub work: &'a Path,
    /// Leaves out all syncing: the upper directory is worthless after a crash.
    pub volatile: bool,
}

/// Makes a detached overlay mount, `lower` from the topmost layer down.
///
/// Without an upper part the mount is read-only, and a single layer is then just
/// bound, since overlayfs refuses it.
pub fn overlay(lower: &[&Path], upper: Option<Upper<'_>>) -> io::Result<OwnedFd> {
    if let ([only], None) = (lower, upper) {
        let mount = clone_tree(CWD, only, false)?;
        set_attr(mount.as_fd(), &Attr::set(Flags::READ_ONLY), false)?;
        return Ok(mount);
    }
    let context = FsContext::open("overlay")?;
    // Long paths are handed over as links to descriptors, which must live until
    // the file system is made.
    let mut pinned = Vec::new();
    lower_layers(&context, lower, &mut pinned)?;
    if let Some(upper) = upper {
        context.string("upperdir", short_path(upper.dir, &mut pinned)?)?;
        context.string("workdir", short_path(upper.work, &mut pinned)?)?;
        if upper.volatile {
            context.flag("volatile")?;
        }
    }
    context.mount(Flags::NONE)
}

/// Gives the layers one by one (kernel 6.7 on), or else all in one string.
fn lower_layers(context: &FsContext, lower: &[&Path], pinned: &mut Vec<OwnedFd>) -> io::Result<()> {
    let Some((first, rest)) = lower.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an overlay without layers",
        ));
    };
    // A missing layer must not be taken for a kernel without `lowerdir+`.
    let appended = short_path(first, pinned).and_then(|path| context.string("lowerdir+", path));
    match appended {
        Ok(()) => {
            for layer in rest {
                context.string("lowerdir+", short_path(layer, pinned)?)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let joined = joined_layers(lower, pinned)?;
            context.string("lowerdir", joined)
        }
        Err(error) => Err(error),
    }
}

fn joined_layers(lower: &[&Path], pinned: &mut Vec<OwnedFd>) -> io::Result<String> {
    let plain: Option<Vec<&str>> = lower.iter().map(|layer| layer.to_str()).collect();
    if let Some(plain) = plain {
        let joined = plain.join(":");
        if joined.len() <= FSCONFIG_MAX && !plain.iter().any(|p| p.contains([':', '\\', ','])) {
            return Ok(joined);
        }
    }
    let mut links = Vec::with_capacity(lower.len());
    for layer in lower {
        links.push(pin(layer, pinned)?);
    }
    let joined = links.join(":");
    if joined.len() > FSCONFIG_MAX {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{} layers need the overlay option lowerdir+ (kernel 6.7)",
                lower.len()
            ),
        ));
    }
    Ok(joined)
}

fn short_path(path: &Path, pinned: &mut Vec<OwnedFd>) -> io::Result<String> {
    match path.to_str() {
        Some(text) if text.len() <= FSCONFIG_MAX => Ok(text.to_owned()),
        _ => pin(path, pinned),
    }
}

fn pin(path: &Path, pinned: &mut Vec<OwnedFd>) -> io::Result<String> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    pinned.push(fd);
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A tmpfs that is attached nowhere, reached through its descriptor.
    fn scratch() -> (OwnedFd, PathBuf) {
        let mount = super::super::tmpfs(None, 0o755, Flags::NONE).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        (mount, path)
    }

    fn read(mount: &OwnedFd, name: &str) -> String {
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd())).unwrap()
    }

    #[test]
    fn layers_cover_each_other_and_writes_go_up() {
        let (_keep, dir) = scratch();
        for name in ["top", "base", "upper", "work"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("top/a"), "top").unwrap();
        fs::write(dir.join("base/a"), "base").unwrap();
        fs::write(dir.join("base/b"), "base").unwrap();
        let upper = Upper {
            dir: &dir.join("upper"),
            work: &dir.join("work"),
            volatile: true,
        };
        let mount = overlay(&[&dir.join("top"), &dir.join("base")], Some(upper)).unwrap();
        assert_eq!(read(&mount, "a"), "top");
        assert_eq!(read(&mount, "b"), "base");
        fs::write(format!("/proc/self/fd/{}/c", mount.as_raw_fd()), "new").unwrap();
        assert_eq!(fs::read_to_string(dir.join("upper/c")).unwrap(), "new");
    }

    #[test]
    fn a_hundred_layers_with_long_names_fit() {
        let (_keep, dir) = scratch();
        let layers: Vec<PathBuf> = (0..100)
            .map(|i| dir.join(format!("{i:0>120}/{}", "x".repeat(180))))
            .collect();
        for (i, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(format!("f{i}")), "").unwrap();
        }
        let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let mount = overlay(&layers, None).unwrap();
        assert_eq!(read(&mount, "f0"), "");
        assert_eq!(read(&mount, "f99"), "");
    }

    #[test]
    fn one_layer_alone_is_bound_read_only() {
        let (_keep, dir) = scratch();
        fs::write(dir.join("a"), "only").unwrap();
        let mount = overlay(&[&dir], None).unwrap();
        assert_eq!(read(&mount, "a"), "only");
        fs::write(format!("/proc/self/fd/{}/b", mount.as_raw_fd()), "").unwrap_err();
    }

    #[test]
    fn a_missing_layer_is_named_not_found() {
        let (_keep, dir) = scratch();
        let error = overlay(&[&dir.join("no"), &dir], None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        assert_eq!(
            overlay(&[], None).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn old_kernels_get_all_layers_in_one_string() {
        let (_keep, dir) = scratch();
        let odd = dir.join("a:b");
        fs::create_dir(&odd).unwrap();
        let mut pinned = Vec::new();
        assert_eq!(
            joined_layers(&[Path::new("/a"), Path::new("/b")], &mut pinned).unwrap(),
            "/a:/b"
        );
        let joined = joined_layers(&[&odd, &dir], &mut pinned).unwrap();
        assert!(joined.starts_with("/proc/self/fd/"), "{joined}");
        let many = vec![dir.as_path(); 40];
        let error = joined_layers(&many, &mut pinned).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
