//! Bringing a group that runs into one more v1 hierarchy.
//!
//! A group is made only where it has a limit or a statistic; when it gets a limit of
//! another controller later, its processes must follow.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files;
use crate::group::processes;

/// Rounds of moving what was forked since the last one.
const ROUNDS: u32 = 100;

/// A process that was moved, and the `cgroup.procs` that it came from.
#[derive(Debug)]
struct Moved {
    pid: i32,
    from: PathBuf,
}

/// Moves that can be taken back.
#[derive(Debug, Default)]
pub(crate) struct Moves(Vec<Moved>);

impl Moves {
    /// Brings the processes of the group at `reference` into the one at `dir`, which
    /// is in the hierarchy of `controller` mounted at `root`. Those that are in it,
    /// or below it, stay where they are.
    pub(crate) fn follow(
        &mut self,
        reference: &Path,
        dir: &Path,
        controller: &str,
        root: &Path,
    ) -> Result<()> {
        for _ in 0..ROUNDS {
            let there = processes(dir)?;
            let mut missing = processes(reference)?;
            missing.retain(|pid| *pid > 0 && !there.contains(pid));
            if missing.is_empty() {
                return Ok(());
            }
            for pid in missing {
                let from = place(pid, controller);
                if enter(dir, pid)?
                    && let Some(from) = from
                {
                    let from = root.join(from.trim_start_matches('/'));
                    self.0.push(Moved { pid, from });
                }
            }
        }
        Err(Error::Busy {
            path: dir.to_owned(),
            tries: ROUNDS,
        })
    }

    /// Takes the moves back, as far as the processes live and their places exist.
    pub(crate) fn undo(&mut self) {
        while let Some(Moved { pid, from }) = self.0.pop() {
            drop(enter(&from, pid));
        }
    }
}

/// Returns whether there was such a process to move.
fn enter(dir: &Path, pid: i32) -> Result<bool> {
    let path = dir.join("cgroup.procs");
    match files::try_write(&path, &pid.to_string()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
        Err(error) => Err(Error::io("move a process into", &path)(error)),
    }
}

/// Where a process is in the hierarchy of a controller, below its root.
fn place(pid: i32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    place_in(&text, controller).map(str::to_owned)
}

fn place_in<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let names = parts.next()?;
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| parts.next())?
    })
}

/// Whether the group above limits what no group below may escape from: a container
/// made in it has to be in that hierarchy, whatever it asks for itself.
pub(crate) fn is_limited(dir: &Path, controller: &str) -> bool {
    let text = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    match controller {
        "cpu" => {
            let (quota, shares) = (text(dir, "cpu.cfs_quota_us"), text(dir, "cpu.shares"));
            !["-1", ""].contains(&quota.trim()) || !["1024", ""].contains(&shares.trim())
        }
        "cpuset" => dir.parent().is_some_and(|parent| {
            ["cpuset.cpus", "cpuset.mems"].iter().any(|file| {
                let own = text(dir, file);
                !own.trim().is_empty() && own != text(parent, file)
            })
        }),
        "hugetlb" => limits_hugepages(dir),
        _ => false,
    }
}

/// v1 says "unlimited" with a number near 2^63, rounded to pages.
const UNLIMITED: u64 = 1 << 62;

fn limits_hugepages(dir: &Path) -> bool {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return false,
        Err(_) => return true,
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with("B.limit_in_bytes")
            && fs::read_to_string(entry.path())
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .is_some_and(|limit| limit < UNLIMITED)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{is_limited, place_in};

    #[test]
    fn a_place_is_found_by_its_controller() {
        let text = "5:cpu,cpuacct:/kube/a:b\n3:memory:/\n0::/x\n";
        assert_eq!(place_in(text, "cpuacct"), Some("/kube/a:b"));
        assert_eq!(place_in(text, "memory"), Some("/"));
        assert_eq!(place_in(text, "acct"), None);
    }

    #[test]
    fn a_limit_above_is_seen() {
        let name = format!("carpel-cgroup-above-{}", std::process::id());
        let parent = std::env::temp_dir().join(name);
        let dir = parent.join("pod");
        fs::create_dir_all(&dir).unwrap();
        let write = |file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        assert!(!is_limited(&dir, "cpu") && !is_limited(&dir, "hugetlb"));
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.shares", "1024\n");
        assert!(!is_limited(&dir, "cpu"));
        write("cpu.cfs_quota_us", "5000\n");
        assert!(is_limited(&dir, "cpu"));
        write("cpuset.cpus", "0\n");
        fs::write(parent.join("cpuset.cpus"), "0\n").unwrap();
        assert!(!is_limited(&dir, "cpuset"));
        fs::write(parent.join("cpuset.cpus"), "0-1\n").unwrap();
        assert!(is_limited(&dir, "cpuset"));
        write("hugetlb.2MB.limit_in_bytes", "9223372036854771712\n");
        assert!(!is_limited(&dir, "hugetlb"));
        write("hugetlb.2MB.limit_in_bytes", "0\n");
        assert!(is_limited(&dir, "hugetlb"));
        fs::remove_dir_all(&parent).unwrap();
    }
}
