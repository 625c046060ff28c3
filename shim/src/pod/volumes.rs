//! Opens what is mounted into a container, as mounts that are attached nowhere.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use carpel_spec::MountSource;
use carpel_spec::intent::Propagation;
use carpel_sys::mount::{self, Attr, Flags};

use super::recorded::blocking;
use crate::error::Error;

/// A host path on a dead network filesystem answers never.
const LIMIT: Duration = Duration::from_secs(30);

/// One descriptor a source, in the same order.
pub(super) async fn open_all(sources: Vec<MountSource>) -> Result<Vec<OwnedFd>, Error> {
    let paths: Vec<String> = sources.iter().map(|s| s.host_path.clone()).collect();
    let opening = blocking(move || sources.iter().map(open).collect());
    tokio::time::timeout(LIMIT, opening)
        .await
        .unwrap_or_else(|_| {
            Err(Error::Deadline {
                what: format!("opening the mount sources {paths:?}"),
                after: LIMIT,
            })
        })
}

fn open(source: &MountSource) -> Result<OwnedFd, Error> {
    let path = &source.host_path;
    let tree = mount::clone_path(Path::new(path), true).map_err(|error| not_there(path, error))?;
    let mut all = Attr::default();
    match source.propagation {
        Propagation::Private => all.propagation = Some(mount::Propagation::Private),
        Propagation::HostToContainer => all.propagation = Some(mount::Propagation::Slave),
        Propagation::Bidirectional => require_shared(path)?,
    }
    if source.recursive_read_only {
        all.set = Flags::READ_ONLY;
    }
    let failed = |error| Error::io(format!("set the attributes of mount source {path}"))(error);
    if all.propagation.is_some() || source.recursive_read_only {
        mount::set_attr(&tree, &all, true).map_err(failed)?;
    }
    if source.readonly {
        mount::set_attr(&tree, &Attr::set(Flags::READ_ONLY), false).map_err(failed)?;
    }
    Ok(tree)
}

fn not_there(path: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Invalid(format!(
            "mounts.host_path: {path:?} does not exist on the host"
        )),
        _ => Error::io(format!("open the mount source {path}"))(error),
    }
}

/// What is mounted inside can only be seen outside if the source's mount is shared.
fn require_shared(path: &str) -> Result<(), Error> {
    let shared =
        is_on_shared_mount(Path::new(path)).map_err(Error::io("read /proc/self/mountinfo"))?;
    if shared {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "mounts.propagation: {path:?} is not on a shared mount, which BIDIRECTIONAL needs"
    )))
}

/// Whether the mount that holds `path` is shared (proc(5), mountinfo).
fn is_on_shared_mount(path: &Path) -> io::Result<bool> {
    let path = std::fs::canonicalize(path)?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut best: Option<(usize, bool)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4) else { continue };
        let point = point.replace("\\040", " ");
        if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            let shared = fields
                .take_while(|f| *f != "-")
                .any(|f| f.starts_with("shared:"));
            best = Some((point.len(), shared));
        }
    }
    Ok(best.is_some_and(|(_, shared)| shared))
}
