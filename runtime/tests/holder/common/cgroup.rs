//! A cgroup for a test's containers, in one v1 hierarchy or the v2 tree.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::wait;

/// Removed, with all its processes and those below it, at the end.
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/pids");
        let root = if v1.is_dir() {
            v1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    /// Of a cgroup below this one, which ends with this one.
    pub(crate) fn procs_of(&self, name: &str) -> OwnedFd {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        std::mem::ManuallyDrop::new(Self { path }).procs()
    }

    pub(crate) fn procs(&self) -> OwnedFd {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(self.path.join("cgroup.procs")).unwrap().into()
    }

    /// Of the processes in it and in those below it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let dirs = self.below().into_iter().chain([self.path.clone()]);
        let texts = dirs.filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        texts
            .flat_map(|text| {
                let pids = text.lines().map(|line| line.parse().unwrap());
                pids.collect::<Vec<i32>>()
            })
            .collect()
    }

    fn below(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Ends what a failed test has left.
    pub(crate) fn kill(&self) {
        wait("the end of a cgroup's processes", || {
            for pid in self.pids() {
                let pid = Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            self.pids().is_empty().then_some(())
        });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        wait("the cgroup's removal", || {
            for below in self.below() {
                drop(fs::remove_dir(below));
            }
            let removed = fs::remove_dir(&self.path);
            (removed.is_ok() || !self.path.exists()).then_some(())
        });
    }
}
