//! Opens what is mounted into a container, as mounts that are attached nowhere.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use carpel_spec::MountSource;
use carpel_spec::intent::{Propagation, Restrict};
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
    let tree = mount::clone_path(Path::new(path), source.recursive)
        .map_err(|error| not_there(path, error))?;
    let mut all = Attr::set(restrictions(source.restrict));
    match source.propagation {
        Propagation::Private => all.propagation = Some(mount::Propagation::Private),
        Propagation::HostToContainer => {
            require(
                path,
                "HOST_TO_CONTAINER",
                "shared or slave",
                &["shared:", "master:"],
            )?;
            all.propagation = Some(mount::Propagation::Slave);
        }
        Propagation::Bidirectional => require(path, "BIDIRECTIONAL", "shared", &["shared:"])?,
    }
    if source.recursive_read_only {
        all.set = all.set | Flags::READ_ONLY;
    }
    let failed = |error| Error::io(format!("set the attributes of mount source {path}"))(error);
    mount::set_attr(&tree, &all, true).map_err(failed)?;
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

fn restrictions(restrict: Restrict) -> Flags {
    let flags = [
        (restrict.noexec, Flags::NOEXEC),
        (restrict.nodev, Flags::NODEV),
        (restrict.nosuid, Flags::NOSUID),
    ];
    flags
        .iter()
        .filter(|(on, _)| *on)
        .fold(Flags::NONE, |all, (_, flag)| all | *flag)
}

/// Mounts travel between inside and outside only if the source's mount lets them: a
/// client that asks for it shall not be left without in silence.
fn require(path: &str, mode: &str, kind: &str, fields: &[&str]) -> Result<(), Error> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::io("read /proc/self/mountinfo"))?;
    let real = std::fs::canonicalize(path).map_err(|error| not_there(path, error))?;
    if mount_has(&table, &real, fields) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "mounts.propagation: {path:?} is not on a {kind} mount, which {mode} needs"
    )))
}

/// Whether the mount that holds `path` has one of these optional fields (proc(5)).
fn mount_has(table: &str, path: &Path, fields: &[&str]) -> bool {
    let mut best: Option<(usize, bool)> = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        let Some(point) = words.nth(4) else { continue };
        let point = unescape(point);
        let longer = best.is_none_or(|(length, _)| point.len() >= length);
        if longer && path.starts_with(os(&point)) {
            let mut optional = words.skip(1).take_while(|word| *word != "-");
            let has = optional.any(|word| fields.iter().any(|field| word.starts_with(field)));
            best = Some((point.len(), has));
        }
    }
    best.is_some_and(|(_, has)| has)
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Blanks, tabs, newlines and backslashes stand in the table as three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n\
        21 20 8:2 / /data rw - ext4 /dev/b rw\n\
        22 20 8:3 / /data/with\\040blank rw master:4 - ext4 /dev/c rw\n\
        23 20 8:4 / /data/over rw shared:5 - ext4 /dev/d rw\n\
        24 23 8:5 / /data/over rw - tmpfs none rw\n";

    #[test]
    fn the_mount_that_holds_a_path_decides() {
        let has = |path: &str, fields: &[&str]| mount_has(TABLE, Path::new(path), fields);
        assert!(has("/srv/x", &["shared:"]));
        assert!(has("/database", &["shared:"]), "not below /data");
        assert!(!has("/data/x", &["shared:", "master:"]));
        assert!(has("/data/with blank/x", &["shared:", "master:"]));
        assert!(!has("/data/with blank/x", &["shared:"]));
        assert!(!has("/data/over", &["shared:"]), "the upper one counts");
    }
}
