//! Looks at the host, and says what no record explains.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use carpel_cgroup::Hierarchies;
use carpel_network::{BridgeConfig, Inventory};

use super::known::{Known, names};
use super::processes;
use super::report::{Kind, Leftover, Report};
use crate::systemd::{BELOW_SCOPE, Scope};

/// Where what is ours stands.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) cgroup_root: String,
    /// None: pods have no network of ours.
    pub(crate) bridge: Option<BridgeConfig>,
}

/// What the host has, as far as it bears a name of ours.
#[derive(Debug, Default)]
struct Found {
    /// Path below the hierarchies' roots, its pod or container, its processes.
    cgroups: Vec<(String, Owner, BTreeSet<i32>)>,
    /// Holders: process and pod.
    holders: Vec<(i32, String)>,
    mounts: BTreeSet<String>,
    rootfs: BTreeSet<String>,
    run_dirs: BTreeSet<String>,
    network: Inventory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Pod(String),
    Container(String),
}

/// Blocks. Nothing on the host is changed.
pub(crate) fn look(places: &Places) -> Report {
    let mut known = Known::read(&places.root);
    let mut failures = Vec::new();
    let found = find(places, &mut failures);
    known.add(Known::read(&places.root));
    let mut leftovers = judge(&found, &known);
    leftovers.extend(stray_namespaces(&found, &known));
    leftovers.sort_unstable();
    Report {
        leftovers,
        failures,
    }
}

fn find(places: &Places, failures: &mut Vec<String>) -> Found {
    let mut found = Found {
        holders: processes::holders(&places.run).into_iter().collect(),
        rootfs: names(&places.root.join("images/rootfs")),
        run_dirs: names(&places.run.join("pods")),
        ..Found::default()
    };
    match cgroups(&places.cgroup_root) {
        Ok(cgroups) => found.cgroups = cgroups,
        Err(error) => failures.push(format!("cgroups: {error}")),
    }
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(table) => found.mounts = mounts(&table, places),
        Err(error) => failures.push(format!("mounts: {error}")),
    }
    if let Some(bridge) = &places.bridge {
        match Inventory::take(bridge) {
            Ok(network) => found.network = network,
            Err(error) => failures.push(format!("network: {error}")),
        }
    }
    found
}

/// Groups of pods, and those in them that are of containers or holders.
fn cgroups(root: &str) -> Result<Vec<(String, Owner, BTreeSet<i32>)>, carpel_cgroup::Error> {
    let hierarchies = Hierarchies::detect()?;
    let mut all = Vec::new();
    for name in hierarchies.children(root)? {
        let path = format!("{root}/{name}");
        // With systemd a pod is in a scope.
        let (pod, groups) = match Scope::pod_of(&name) {
            Some(pod) => (pod.to_owned(), format!("{path}/{BELOW_SCOPE}")),
            None => (name, path.clone()),
        };
        for child in hierarchies.children(&groups)? {
            let inner = format!("{groups}/{child}");
            let pids = hierarchies.open(&inner)?.pids()?.into_iter().collect();
            let owner = match child.starts_with("holder-") {
                true => Owner::Pod(pod.clone()),
                false => Owner::Container(child),
            };
            all.push((inner, owner, pids));
        }
        all.push((path, Owner::Pod(pod), BTreeSet::new()));
    }
    Ok(all)
}

/// Mounts on what is ours: there should be none, for ours are attached nowhere.
/// The directories themselves may be filesystems of their own.
fn mounts(table: &str, places: &Places) -> BTreeSet<String> {
    let inside = [
        places.run.join("pods"),
        places.root.join("state"),
        places.root.join("images/rootfs"),
        places.root.join("images/layers"),
    ];
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(|point| point.replace("\\040", " "))
        .filter(|point| {
            let point = Path::new(point);
            inside
                .iter()
                .any(|dir| point != dir && point.starts_with(dir))
        })
        .collect()
}

/// Pure: what stands in no record.
fn judge(found: &Found, known: &Known) -> Vec<Leftover> {
    let mut all = Vec::new();
    for (path, owner, pids) in &found.cgroups {
        if let Some(why) = unknown(owner, known) {
            all.push(Leftover::new(Kind::Cgroup, path, &why));
            let runs = |pid: &i32| format!("{} in cgroup {path}", processes::program(*pid));
            let strays = pids.iter().map(|pid| (pid, runs(pid)));
            all.extend(strays.map(|(pid, what)| Leftover::new(Kind::Process, pid, what)));
        }
    }
    for (pid, pod) in &found.holders {
        let told = |leftover: &Leftover| {
            leftover.kind == Kind::Process && leftover.name == pid.to_string()
        };
        if !known.pods.contains(pod) && !all.iter().any(told) {
            let what = format!("holder of pod {pod}, which has no record");
            all.push(Leftover::new(Kind::Process, pid, what));
        }
    }
    let mount = |point: &String| Leftover::new(Kind::Mount, point, "is mounted on what is ours");
    all.extend(found.mounts.iter().map(mount));
    let strays = found.rootfs.difference(&known.containers);
    let what = "root filesystem of a container that has no record";
    all.extend(strays.map(|key| Leftover::new(Kind::Rootfs, key, what)));
    let strays = found.run_dirs.difference(&known.pods);
    let what = "run directory of a pod that has no record";
    all.extend(strays.map(|pod| Leftover::new(Kind::RunDir, pod, what)));
    judge_network(&found.network, known, &mut all);
    all
}

fn judge_network(network: &Inventory, known: &Known, all: &mut Vec<Leftover>) {
    let what = "device of a pod that has no network record";
    all.extend(
        network
            .stray_links()
            .map(|link| Leftover::new(Kind::Link, link, what)),
    );
    let what = "host ports lead to this address, which no pod has";
    all.extend(
        network
            .stray_targets()
            .map(|ip| Leftover::new(Kind::Rule, ip, what)),
    );
    for record in network
        .records
        .iter()
        .filter(|r| !known.pods.contains(&r.pod_id))
    {
        let what = format!("kept for pod {}, which has no record", record.pod_id);
        let address = |ip| Leftover::new(Kind::Address, ip, &what);
        all.extend(record.addresses.iter().map(address));
    }
}

fn unknown(owner: &Owner, known: &Known) -> Option<String> {
    match owner {
        Owner::Pod(pod) if !known.pods.contains(pod) => {
            Some(format!("of pod {pod}, which has no record"))
        }
        Owner::Container(id) if !known.containers.contains(id) => {
            Some(format!("of container {id}, which has no record"))
        }
        _ => None,
    }
}

fn stray_namespaces(found: &Found, known: &Known) -> Vec<Leftover> {
    let mut stray = BTreeSet::new();
    let mut proper = BTreeSet::new();
    for (_, owner, pids) in &found.cgroups {
        match unknown(owner, known) {
            Some(_) => stray.extend(pids),
            None => proper.extend(pids),
        }
    }
    for (pid, pod) in &found.holders {
        match known.pods.contains(pod) {
            true => proper.insert(*pid),
            false => stray.insert(*pid),
        };
    }
    let what = "lives by a process that belongs to no record";
    let namespaces = processes::namespaces(&stray, &proper);
    let leftover = |name| Leftover::new(Kind::Namespace, name, what);
    namespaces.into_iter().map(leftover).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carpel_network::{Inventory, Recorded};

    use super::{Found, Kind, Known, Owner, Places, judge, mounts};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn known() -> Known {
        Known {
            pods: set(&["p"]),
            containers: set(&["c"]),
        }
    }

    fn host(pod: &str, container: &str) -> Found {
        let pid = i32::MAX;
        Found {
            cgroups: vec![
                (format!("/x/{pod}"), Owner::Pod(pod.into()), [].into()),
                (
                    format!("/x/{pod}/{container}"),
                    Owner::Container(container.into()),
                    [pid].into(),
                ),
            ],
            holders: vec![(pid, pod.into()), (pid - 1, pod.into())],
            mounts: BTreeSet::new(),
            rootfs: set(&[container]),
            run_dirs: set(&[pod]),
            network: Inventory {
                records: [Recorded {
                    pod_id: pod.into(),
                    host_interface: "cpl1".into(),
                    addresses: vec!["10.0.0.2".parse().unwrap()],
                }]
                .into(),
                links: set(&["cpl1"]),
                targets: ["10.0.0.2".parse().unwrap()].into(),
            },
        }
    }

    #[test]
    fn what_has_a_record_is_no_leftover() {
        assert_eq!(judge(&host("p", "c"), &known()), []);
    }

    #[test]
    fn what_has_none_is_one_of_each_kind() {
        let all = judge(&host("q", "d"), &known());
        let count = |kind| all.iter().filter(|l| l.kind == kind).count();
        assert_eq!(count(Kind::Cgroup), 2);
        assert_eq!(count(Kind::Process), 2, "each process once: {all:?}");
        assert_eq!(count(Kind::Rootfs), 1);
        assert_eq!(count(Kind::RunDir), 1);
        assert_eq!(count(Kind::Address), 1);
        assert_eq!((count(Kind::Link), count(Kind::Rule)), (0, 0));
    }

    #[test]
    fn a_container_without_record_in_a_known_pod_is_a_leftover() {
        let all = judge(&host("p", "d"), &known());
        let kinds: Vec<_> = all.iter().map(|l| l.kind).collect();
        assert_eq!(kinds, [Kind::Cgroup, Kind::Process, Kind::Rootfs]);
    }

    #[test]
    fn only_mounts_inside_what_is_ours_count() {
        let places = Places {
            root: "/r".into(),
            run: "/run/c".into(),
            cgroup_root: "/x".into(),
            bridge: None,
        };
        let line = |point: &str| format!("1 2 0:3 / {point} rw - tmpfs none rw\n");
        let points = [
            "/r",
            "/r/images",
            "/run/c",
            "/run/c/pods",
            "/run/c/pods/a/b",
            "/rx/state/y",
        ];
        let table: String = points.map(line).concat();
        assert_eq!(mounts(&table, &places), set(&["/run/c/pods/a/b"]));
    }
}
