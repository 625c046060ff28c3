//! The cgroup of one node in every hierarchy: what is in it, and its removal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Debug)]
pub struct Cgroups {
    roots: Vec<PathBuf>,
}

impl Cgroups {
    /// `name` is the cgroup below the root of each hierarchy; it need not exist.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        let roots = table
            .lines()
            .filter_map(hierarchy)
            .map(|mount| mount.join(name))
            .collect();
        Ok(Self { roots })
    }

    /// A file of the group at `relative` below the node's own, in whichever hierarchy
    /// has it.
    pub(crate) fn file(&self, relative: &str, name: &str) -> Option<PathBuf> {
        let files = self.roots.iter().map(|root| root.join(relative).join(name));
        files.into_iter().find(|file| file.exists())
    }

    /// Makes the group in every hierarchy, as a kubelet does, and gives its directories.
    pub(crate) fn make(&self, relative: &str) -> anyhow::Result<Vec<PathBuf>> {
        let dirs = self.roots.iter().map(|root| root.join(relative));
        dirs.map(|dir| {
            std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            Ok(dir)
        })
        .collect()
    }

    /// The node's own cgroup, where it is there.
    pub(crate) fn own(&self) -> Vec<PathBuf> {
        let roots = self.roots.iter().filter(|root| root.is_dir());
        roots.cloned().collect()
    }

    /// Every directory there is, the node's own cgroup among them.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut pending: Vec<PathBuf> = self
            .roots
            .iter()
            .filter(|root| root.is_dir())
            .cloned()
            .collect();
        while let Some(directory) = pending.pop() {
            pending.extend(subdirectories(&directory));
            found.insert(directory);
        }
        found
    }

    /// The directories without the node's own cgroup, which stays for the next pod.
    pub(crate) fn below(&self) -> BTreeSet<PathBuf> {
        let mut found = self.directories();
        found.retain(|directory| !self.roots.contains(directory));
        found
    }

    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        self.directories()
            .iter()
            .filter_map(|directory| std::fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|list| {
                list.lines()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .filter(|pid| *pid > 0)
            .collect()
    }

    /// Kills what is inside and removes all of it.
    pub fn remove(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            for pid in self.processes() {
                // Gone already is as good.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            for directory in self.directories().iter().rev() {
                std::fs::remove_dir(directory).ok();
            }
            if self.directories().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn hierarchy(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let kind = filesystem.split(' ').next()?;
    matches!(kind, "cgroup" | "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Cgroups, hierarchy};

    #[test]
    fn finds_hierarchies_and_nothing_else() {
        let line = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        assert_eq!(
            hierarchy(line).unwrap().to_str(),
            Some("/sys/fs/cgroup/memory")
        );
        assert_eq!(hierarchy("22 1 0:20 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn removes_cgroups_with_what_runs_in_them() {
        let cgroups = Cgroups::new("ct-selftest").unwrap();
        let inner = cgroups.roots[0].join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        std::fs::write(inner.join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(cgroups.processes().len(), 1);
        assert_eq!(cgroups.directories().len(), 2);
        cgroups.remove();
        assert!(!child.wait().unwrap().success());
        assert!(cgroups.directories().is_empty());
    }
}
