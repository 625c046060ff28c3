//! Cgroup mounts, from mountinfo.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::doctor::facts::Cgroups;

pub(super) fn look() -> Cgroups {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut cgroups = parse(&table);
    if let Some(root) = &cgroups.v2 {
        let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        cgroups.v2_controllers = text.split_whitespace().map(str::to_owned).collect();
    }
    let mut mounts: Vec<PathBuf> = cgroups.v1.values().chain(&cgroups.v2).cloned().collect();
    mounts.sort_unstable();
    mounts.dedup();
    cgroups.read_only = mounts
        .into_iter()
        .filter(|mount| is_read_only(mount))
        .collect();
    cgroups
}

pub(super) fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn parse(table: &str) -> Cgroups {
    let mut cgroups = Cgroups::default();
    for line in table.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = mount.split(' ').nth(4) else {
            continue;
        };
        let mut words = filesystem.split(' ');
        match (words.next(), words.nth(1)) {
            (Some("cgroup2"), _) => cgroups.v2 = Some(point.into()),
            (Some("cgroup"), Some(options)) => {
                let names = options.split(',').filter(|word| !word.contains('='));
                let names = names.filter(|word| !matches!(*word, "rw" | "ro" | "xattr"));
                cgroups
                    .v1
                    .extend(names.map(|name| (name.to_owned(), point.into())));
            }
            _ => {}
        }
    }
    cgroups
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_versions_are_found() {
        let found = parse(
            "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(found.v2.unwrap().to_str(), Some("/sys/fs/cgroup/unified"));
        let names: Vec<_> = found.v1.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct"]);
    }
}
