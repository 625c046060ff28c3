//! Processes of ours: holders by their binary, and what runs in our cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Of the host's processes that are looked at.
const MOST: usize = 100_000;

/// Kinds of namespaces that a pod has of its own.
const NAMESPACES: [&str; 5] = ["net", "ipc", "uts", "pid", "mnt"];

/// Holders of this daemon's run directory, with the pod whose log each writes.
pub(super) fn holders(run: &Path) -> BTreeMap<i32, String> {
    let pods = run.join("pods");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(MOST)
        .filter_map(|pid: i32| Some((pid, pod_of_holder(pid, &pods)?)))
        .collect()
}

fn pod_of_holder(pid: i32, pods: &Path) -> Option<String> {
    let binary = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    if !binary.to_string_lossy().contains("carpel-holder") {
        return None;
    }
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
    let rest = log.strip_prefix(pods).ok()?;
    Some(rest.iter().next()?.to_string_lossy().into_owned())
}

/// Name of the program, for people.
pub(super) fn program(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| "gone".to_owned(), |name| name.trim().to_owned())
}

/// Namespaces that these processes have, and neither we nor the others.
pub(super) fn namespaces(of: &BTreeSet<i32>, others: &BTreeSet<i32>) -> BTreeSet<String> {
    let all = |pid: &str| -> Vec<String> {
        let links = NAMESPACES.iter().filter_map(|kind| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
            Some(link.to_string_lossy().into_owned())
        });
        links.collect()
    };
    let mut known: BTreeSet<String> = all("self").into_iter().collect();
    known.extend(others.iter().flat_map(|pid| all(&pid.to_string())));
    let found = of.iter().flat_map(|pid| all(&pid.to_string()));
    found.filter(|link| !known.contains(link)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{namespaces, pod_of_holder, program};

    #[test]
    fn a_program_is_named_and_is_no_holder() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(!program(me).is_empty());
        assert_eq!(pod_of_holder(me, "/run/carpel/pods".as_ref()), None);
        assert_eq!(program(-1), "gone");
    }

    #[test]
    fn our_own_namespaces_are_not_left_over() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(namespaces(&[me].into(), &BTreeSet::new()), BTreeSet::new());
    }
}
