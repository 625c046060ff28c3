//! The processes of a cgroup: finding, signalling and killing them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use carpel_sys::pidfd;

/// SIGKILL.
pub(crate) const KILL: i32 = 9;

/// A cgroup, as the daemon passed it: one file a hierarchy, and on v2 more.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) procs: Vec<OwnedFd>,
    pub(crate) dir: Option<OwnedFd>,
    pub(crate) kill: Option<OwnedFd>,
}

impl Members {
    /// Whether there is a cgroup at all.
    pub(crate) fn is_known(&self) -> bool {
        !self.procs.is_empty()
    }

    /// Copies for a worker that places a process here.
    pub(crate) fn place(&self) -> io::Result<carpel_native::Cgroup> {
        let dir = self.dir.as_ref().map(OwnedFd::try_clone).transpose()?;
        let procs = self.procs.iter().map(OwnedFd::try_clone);
        let procs = procs.collect::<io::Result<_>>()?;
        Ok(carpel_native::Cgroup { procs, dir })
    }

    /// Kills all processes; returns whether there may still be some.
    pub(crate) fn kill(&self) -> bool {
        if let Some(file) = &self.kill
            && rustix::io::write(file, b"1").is_ok()
        {
            return !self.list().is_empty();
        }
        self.signal(KILL) > 0
    }

    /// Signals all processes; returns how many there were.
    pub(crate) fn signal(&self, signal: i32) -> usize {
        // Between reading a number and opening it the process may end and another
        // get its number. One that is listed again has kept it in between.
        let candidates: Vec<_> = self
            .list()
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd::open(pid).ok()?)))
            .collect();
        if candidates.is_empty() {
            return 0;
        }
        let still = self.list();
        for (pid, process) in &candidates {
            if still.binary_search(pid).is_ok() {
                // It may be a zombie by now.
                drop(pidfd::signal(process, signal));
            }
        }
        still.len()
    }

    /// Pids in order, without our own. Only the first file is the group's alone: an
    /// exec shares the other v1 hierarchies with its container.
    fn list(&self) -> Vec<i32> {
        let own = std::process::id();
        let mut pids: Vec<i32> = self
            .procs
            .first()
            .into_iter()
            .filter_map(|file| read_fresh(file.as_fd()).ok())
            .flat_map(|text| {
                let numbers = text.lines().filter_map(|line| line.parse().ok());
                numbers.collect::<Vec<i32>>()
            })
            .filter(|pid| *pid > 0 && pid.cast_unsigned() != own)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// Reads the file anew: a v1 list that is open shows for a second what it showed
/// when it was first read.
fn read_fresh(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut text = String::new();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
