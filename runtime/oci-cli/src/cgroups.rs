//! Keeps the runtime to the cgroup hierarchies that the container has a place in.
//!
//! On v1 a runtime joins every hierarchy that is mounted, and makes the parents it
//! misses there, which nobody would remove. So those without the container's cgroup
//! are taken out of the private mount namespace.

use std::path::{Path, PathBuf};

use carpel_sys::mount;

use crate::error::{Context, Result};

/// Detaches the hierarchies in which there is no `cgroup`.
pub(crate) fn hide_others(cgroup: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").during("read the mount table")?;
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    for point in hierarchies(&table) {
        if !point.join(relative).is_dir() {
            mount::detach(&point).with(|| format!("hide {}", point.display()))?;
        }
    }
    Ok(())
}

/// Mount points of cgroup filesystems, the last mounted first.
fn hierarchies(table: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    };
    table.lines().rev().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroups_are_looked_at() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/my\\040own rw shared:4 - cgroup2 cgroup2 rw\n";
        let found = hierarchies(table);
        assert_eq!(
            found,
            [
                PathBuf::from("/sys/fs/cgroup/my own"),
                PathBuf::from("/sys/fs/cgroup/cpu")
            ]
        );
    }
}
