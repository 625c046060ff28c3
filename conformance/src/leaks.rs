//! What stands on a node: taken twice, the difference is what was left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cgroups::Cgroups;
use crate::namespaces::Namespaces;

/// Everything a pod may leave on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub processes: BTreeSet<String>,
    pub mounts: BTreeSet<String>,
    pub links: BTreeSet<String>,
    pub rules: BTreeSet<String>,
    pub cgroups: BTreeSet<String>,
    pub files: BTreeSet<String>,
}

impl Snapshot {
    pub(crate) fn take(
        namespaces: &Namespaces,
        cgroups: &Cgroups,
        folders: &[&Path],
        own_process: Option<u32>,
    ) -> anyhow::Result<Self> {
        let (mounts, links, rules) = namespaces.enter(|| {
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo");
            (
                mounts,
                output("ip", &["-o", "link"]),
                output("nft", &["list", "ruleset"]),
            )
        })?;
        Ok(Self {
            processes: processes(namespaces.network_inode()?, cgroups, own_process),
            mounts: mount_points(&mounts.context("read mountinfo")?),
            links: links?.lines().filter_map(link_name).collect(),
            rules: rule_lines(&rules?),
            cgroups: names(cgroups.below()),
            files: folders
                .iter()
                .flat_map(|folder| names(files(folder)))
                .collect(),
        })
    }

    /// What stands here and did not before.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let parts = [
            ("process", &self.processes, &before.processes),
            ("mount", &self.mounts, &before.mounts),
            ("link", &self.links, &before.links),
            ("rule", &self.rules, &before.rules),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("file", &self.files, &before.files),
        ];
        let left = |(kind, now, before): (&str, &BTreeSet<String>, &BTreeSet<String>)| {
            now.difference(before)
                .map(|what| format!("{kind} {what}"))
                .collect::<Vec<_>>()
        };
        parts.into_iter().flat_map(left).collect()
    }
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Mount points of a mountinfo, each with its filesystem.
pub(crate) fn mount_points(mountinfo: &str) -> BTreeSet<String> {
    let point = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        Some(format!("{} ({kind})", mount.split(' ').nth(4)?))
    };
    mountinfo.lines().filter_map(point).collect()
}

fn link_name(line: &str) -> Option<String> {
    let name = line.split(": ").nth(1)?;
    Some(name.split('@').next()?.to_owned())
}

/// Rules without what changes by itself.
fn rule_lines(rules: &str) -> BTreeSet<String> {
    let mut table = "";
    let mut lines = BTreeSet::new();
    for line in rules.lines() {
        if line.starts_with("table") {
            table = line;
        }
        let line = line.trim().trim_end_matches(" {");
        if !matches!(line, "" | "}") && !line.contains("counter packets") {
            lines.insert(format!("{line} [{table}]"));
        }
    }
    lines
}

/// Processes of the node's cgroups, and those in its network namespace.
fn processes(network: u64, cgroups: &Cgroups, own: Option<u32>) -> BTreeSet<String> {
    let inside = cgroups.processes();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).ok() != own)
        .filter(|pid| inside.contains(pid) || is_in(*pid, network))
        .filter_map(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let zombie = state
                .rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('Z'));
            (!zombie).then(|| format!("{pid} {}", name.replace('\0', " ").trim()))
        })
        .collect()
}

fn is_in(pid: i32, network: u64) -> bool {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net"));
    link.is_ok_and(|link| link.to_string_lossy() == format!("net:[{network}]"))
}

/// Everything under `folder`, directories too.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

fn names(paths: BTreeSet<PathBuf>) -> BTreeSet<String> {
    paths
        .into_iter()
        .map(|path| path.display().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, link_name, mount_points, rule_lines};

    #[test]
    fn tells_what_is_new_of_each_kind() {
        let before = Snapshot::default();
        let mut after = Snapshot::default();
        after.links.insert("veth1".to_owned());
        after.files.insert("/run/x".to_owned());
        assert_eq!(after.beyond(&before), ["link veth1", "file /run/x"]);
        assert!(before.beyond(&after).is_empty());
    }

    #[test]
    fn reads_what_the_tools_print() {
        assert_eq!(
            link_name("7: veth0@if3: <UP> mtu 1500").as_deref(),
            Some("veth0")
        );
        let mounts = mount_points("31 25 0:27 / /a rw shared:1 - tmpfs none rw\n");
        assert_eq!(mounts.into_iter().collect::<Vec<_>>(), ["/a (tmpfs)"]);
        let rules = rule_lines("table ip t {\n  chain c {\n    tcp dport 80 accept\n  }\n}\n");
        assert!(rules.contains("tcp dport 80 accept [table ip t {]"));
        assert_eq!(rules.len(), 3);
    }
}
