//! Paths that a container must not see, or not write to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use carpel_sys::mount::{self, Flags};
use carpel_sys::openat2::{self, OFlags};

use crate::devices;
use crate::error::{Context, Error, Result};
use crate::mounts::{self, Tree};

/// The smallest that a tmpfs can be; nothing is ever in it.
const EMPTY_BYTES: u64 = 4096;

/// Covers of masked paths: one of each kind, copied for every path.
#[derive(Debug)]
struct Covers<'a> {
    tree: &'a Tree<'a>,
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

/// Covers directories with an empty one, and anything else with the null device.
pub(crate) fn mask(tree: &Tree<'_>, paths: &[String]) -> Result<()> {
    let mut covers = Covers {
        tree,
        empty: None,
        null: None,
    };
    for path in paths {
        let Some(target) = find(tree.root, path)? else {
            continue;
        };
        let what = || format!("mask {path}");
        let cover = if openat2::is_directory(&target).with(what)? {
            covers.empty()?
        } else {
            covers.null()?
        };
        mount::attach(cover, target).with(what)?;
    }
    Ok(())
}

/// Makes paths, and all mounts below them, read-only.
pub(crate) fn make_readonly(tree: &Tree<'_>, paths: &[String]) -> Result<()> {
    for path in paths {
        let Some(target) = find(tree.root, path)? else {
            continue;
        };
        let what = || format!("make {path} read-only");
        let copy = mount::clone_tree(&target, "", true).with(what)?;
        mounts::seal(&copy, true).with(what)?;
        mount::attach(copy, target).with(what)?;
    }
    Ok(())
}

fn find(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    match openat2::open_in_root(root, path, OFlags::PATH, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if devices::is_missing(&error) => Ok(None),
        Err(source) => Err(Error::Os {
            what: format!("open {path} of the image"),
            source,
        }),
    }
}

impl Covers<'_> {
    /// The first cover is the mount itself, all later ones are copies of it.
    fn empty(&mut self) -> Result<OwnedFd> {
        let what = "make an empty directory";
        if let Some(first) = &self.empty {
            return mount::clone_tree(first, "", false).during(what);
        }
        let flags = Flags::READ_ONLY | Flags::NOSUID | Flags::NODEV | Flags::NOEXEC;
        let first = mount::tmpfs(Some(EMPTY_BYTES), 0o755, flags).during(what)?;
        let cover = first.try_clone().during(what)?;
        self.empty = Some(first);
        Ok(cover)
    }

    fn null(&mut self) -> Result<OwnedFd> {
        let what = "take the null device";
        if self.null.is_none() {
            self.null = Some(self.find_null()?);
        }
        match &self.null {
            Some(null) => mount::clone_tree(null, "", false).during(what),
            None => Err(Error::Invalid(what.to_owned())),
        }
    }

    /// From the container's fresh `/dev`, or else the holder's own: never what an
    /// image calls `/dev/null`.
    fn find_null(&self) -> Result<OwnedFd> {
        let what = "open the null device";
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let null = match &self.tree.dev {
            Some(dev) => openat2::open_no_links(dev.mount.as_fd(), "null", flags, 0),
            None => rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, openat2::Mode::empty())
                .map_err(Into::into),
        }
        .during(what)?;
        if devices::is_null(null.as_fd()).during(what)? {
            Ok(null)
        } else {
            Err(Error::Invalid(
                "/dev/null is not the null device".to_owned(),
            ))
        }
    }
}
