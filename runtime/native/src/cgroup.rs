//! Entering a cgroup, and showing it to the container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use carpel_sys::mount::{self, Flags, FsContext};
use carpel_sys::openat2;

use crate::Cgroup;
use crate::error::{Context, Result};
use crate::mounts;
use crate::procfs::Procfs;

const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// Enough for a list of named hierarchies; what comes after has no limit of ours.
const TMPFS_BYTES: u64 = 64 << 10;

/// A cgroup hierarchy that the container has a place of its own in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    Unified,
    /// Version 1, by what `/proc/PID/cgroup` calls it: `cpu,cpuacct`, `name=systemd`.
    Old(String),
}

impl Cgroup {
    /// Moves this process, unless it was born in its cgroup.
    pub(crate) fn enter(&self) -> Result<()> {
        if self.dir.is_some() {
            return Ok(());
        }
        for (index, procs) in self.procs.iter().enumerate() {
            rustix::io::write(procs, b"0").with(|| format!("enter cgroup {index}"))?;
        }
        Ok(())
    }

    fn is_old(&self) -> bool {
        let old = |fd: &OwnedFd| mount::filesystem_magic(fd).is_ok_and(|it| it != CGROUP2_MAGIC);
        self.dir.is_none() && self.procs.iter().any(old)
    }

    /// Enters, and finds out which hierarchies that changed.
    pub(crate) fn enter_and_tell(&self, proc: &Procfs) -> Result<Vec<Hierarchy>> {
        if self.is_old() {
            let before = proc.own_cgroups()?;
            self.enter()?;
            return Ok(changed(&before, &proc.own_cgroups()?));
        }
        self.enter()?;
        let unified = self.dir.is_some() || !self.procs.is_empty();
        Ok(if unified {
            vec![Hierarchy::Unified]
        } else {
            Vec::new()
        })
    }
}

/// The version 1 hierarchies whose path is another one now.
fn changed(before: &str, after: &str) -> Vec<Hierarchy> {
    let moved = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line));
    moved
        .filter_map(|line| line.split(':').nth(1))
        .filter(|name| !name.is_empty())
        .map(|name| Hierarchy::Old(name.to_owned()))
        .collect()
}

/// The mount for the place itself: the unified hierarchy, or a directory for old ones.
pub(crate) fn base(hierarchies: &[Hierarchy], flags: Flags) -> io::Result<OwnedFd> {
    if hierarchies == [Hierarchy::Unified] {
        return mount::new_fs("cgroup2", &[], flags);
    }
    mount::tmpfs(Some(TMPFS_BYTES), 0o755, flags.without(Flags::READ_ONLY))
}

/// Puts the old hierarchies into their directory; one that the kernel does not let
/// us mount is left out.
pub(crate) fn attach_hierarchies(
    base: &OwnedFd,
    hierarchies: &[Hierarchy],
    flags: Flags,
) -> io::Result<()> {
    if hierarchies == [Hierarchy::Unified] {
        return Ok(());
    }
    for hierarchy in hierarchies {
        if let Hierarchy::Old(name) = hierarchy
            && let Ok(made) = mount_old(name, flags)
        {
            attach_old(base, name, &made)?;
        }
    }
    if flags.contains(Flags::READ_ONLY) {
        mounts::seal(base, false)?;
    }
    Ok(())
}

fn mount_old(name: &str, flags: Flags) -> io::Result<OwnedFd> {
    let context = FsContext::open("cgroup")?;
    match name.strip_prefix("name=") {
        Some(own) => {
            context.flag("none")?;
            context.string("name", own)?;
        }
        None => name
            .split(',')
            .try_for_each(|controller| context.flag(controller))?,
    }
    context.mount(flags)
}

/// `cpu,cpuacct` is found under each of its names.
fn attach_old(base: &OwnedFd, name: &str, made: &OwnedFd) -> io::Result<()> {
    let dir = name.strip_prefix("name=").unwrap_or(name);
    let base = base.as_fd();
    let target = openat2::mkdir_all_in_root(base, dir, 0o755)?;
    mount::attach(made, target)?;
    for part in dir.split(',').filter(|part| *part != dir) {
        rustix::fs::symlinkat(dir, base, part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_that_were_entered_are_told() {
        let before = "5:pids:/\n4:cpu,cpuacct:/host\n3:memory:/host\n1:name=systemd:/x\n0::/\n";
        let after = "5:pids:/\n4:cpu,cpuacct:/pod/a\n3:memory:/pod/a\n1:name=systemd:/x\n0::/pod\n";
        let expected = ["cpu,cpuacct", "memory"].map(|name| Hierarchy::Old(name.to_owned()));
        assert_eq!(changed(before, after), expected);
    }
}
