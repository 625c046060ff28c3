//! Control groups, on a host with version 1 hierarchies or the one of version 2.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use carpel_native::Cgroup;

use crate::Case;
use crate::harness::{Extra, config, exec_sh, output, start, try_exec};

pub(crate) const CASES: &[Case] = &[
    ("a_container_is_in_its_cgroups_from_the_start", placed),
    ("a_container_sees_its_own_cgroups_only", shown),
    ("an_exec_is_in_a_cgroup_of_its_own", exec_placed),
    ("a_container_is_born_in_its_unified_cgroup", born_in_place),
];

/// A cgroup of this case, removed with it.
struct Group(Vec<PathBuf>);

impl Group {
    fn new(name: &str) -> Self {
        let top = PathBuf::from("/sys/fs/cgroup");
        let version_1 = ["pids", "cpu,cpuacct", "cpu", "memory"].map(|name| top.join(name));
        let mut roots: Vec<PathBuf> = version_1
            .into_iter()
            .filter(|path| path.join("tasks").exists())
            .collect();
        if roots.is_empty() {
            roots.push(top);
        }
        let name = format!("carpel-native-{}-{name}", std::process::id());
        Self::at(roots.into_iter().map(|root| root.join(&name)).collect())
    }

    /// One in the unified hierarchy, wherever that is.
    fn unified(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let root = PathBuf::from(line.split(' ').nth(1)?);
        let name = format!("carpel-native-{}-{name}", std::process::id());
        Some(Self::at(vec![root.join(name)]))
    }

    fn at(paths: Vec<PathBuf>) -> Self {
        paths.iter().for_each(|path| fs::create_dir(path).unwrap());
        Self(paths)
    }

    fn procs(&self) -> Vec<OwnedFd> {
        let open = |path: &PathBuf| {
            File::options()
                .read(true)
                .write(true)
                .open(path.join("cgroup.procs"))
                .unwrap()
                .into()
        };
        self.0.iter().map(open).collect()
    }

    fn pids(&self) -> Vec<Vec<i32>> {
        let read = |path: &PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap();
        self.0
            .iter()
            .map(|path| read(path).lines().map(|pid| pid.parse().unwrap()).collect())
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.0 {
            // A process that was just reaped may be in it a moment longer.
            for _ in 0..100 {
                if fs::remove_dir(path).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn placed() {
    let group = Group::new("placed");
    let extra = Extra {
        procs: group.procs(),
        ..Extra::default()
    };
    let container = crate::harness::create(config(&["sleep", "600"]), extra);
    for pids in group.pids() {
        assert_eq!(pids, [container.created.pid]);
    }
    container.start().kill();
}

fn shown() {
    let group = Group::new("shown");
    let script = "cut -d : -f 2- /proc/self/cgroup; ls /sys/fs/cgroup; \
                  cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | wc -l; \
                  mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>&1 | grep -c Read-only";
    let extra = Extra {
        procs: group.procs(),
        ..Extra::default()
    };
    let text = output(config(&["sh", "-c", script]), extra);
    let version_1 = group.0.len() > 1;
    for path in &group.0 {
        let name = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let own = if version_1 {
            format!("{name}:/\n")
        } else {
            ":/\n".to_owned()
        };
        assert!(text.contains(&own), "{own}: {text}");
        if version_1 {
            assert!(text.lines().any(|line| line == name), "{name}: {text}");
        }
    }
    assert!(!text.contains("carpel-native"), "{text}");
    assert!(!text.lines().any(|line| line == "freezer"), "{text}");
    assert!(text.ends_with("2\n"), "both are read-only: {text}");
    let without = output(config(&["ls", "/sys/fs/cgroup"]), Extra::default());
    assert_eq!(without, "");
}

fn exec_placed() {
    let (group, other) = (Group::new("first"), Group::new("exec"));
    let extra = Extra {
        procs: group.procs(),
        ..Extra::default()
    };
    let mut running = start(config(&["sh", "-c", "echo up; sleep 600"]), extra);
    assert_eq!(running.line(), "up");
    let process = config(&["sh", "-c", "echo up; sleep 600"])["process"].take();
    let mut beside = try_exec(
        running.pid,
        &process,
        None,
        Cgroup {
            procs: other.procs(),
            dir: None,
        },
    )
    .unwrap();
    assert_eq!(beside.line(), "up");
    for pids in other.pids() {
        assert!(pids.contains(&beside.pid), "{pids:?}");
    }
    for pids in group.pids() {
        assert!(
            !pids.contains(&beside.pid) && pids.contains(&running.pid),
            "{pids:?}"
        );
    }
    let same = exec_sh(
        running.pid,
        "readlink /proc/self/ns/cgroup; readlink /proc/1/ns/cgroup",
    );
    let links: Vec<&str> = same.lines().collect();
    assert_eq!(links[0], links[1]);
    // The first process cannot go before all that have been reaped that are in its
    // PID namespace, and this one is a child of ours.
    beside.kill();
    running.kill();
}

fn born_in_place() {
    let (Some(group), Some(other)) = (Group::unified("unified"), Group::unified("beside")) else {
        return;
    };
    let open = |group: &Group| Some(File::open(&group.0[0]).unwrap().into());
    let script = "echo up; grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; \
                  mkdir /sys/fs/cgroup/x 2>&1; sleep 600";
    let extra = Extra {
        cgroup_dir: open(&group),
        ..Extra::default()
    };
    let container = crate::harness::create(config(&["sh", "-c", script]), extra);
    assert_eq!(group.pids(), [[container.created.pid]]);
    let mut running = container.start();
    assert_eq!(running.line(), "up");
    assert_eq!(running.line(), "0::/");
    assert_eq!(running.line(), "1");
    let seen = running.line();
    assert!(seen.parse::<i32>().is_ok(), "cat itself: {seen}");
    assert!(running.line().contains("Read-only file system"));
    let process = config(&["sh", "-c", "echo up; sleep 600"])["process"].take();
    let cgroup = Cgroup {
        procs: Vec::new(),
        dir: open(&other),
    };
    let mut beside = try_exec(running.pid, &process, None, cgroup).unwrap();
    assert_eq!(beside.line(), "up");
    assert!(other.pids()[0].contains(&beside.pid));
    beside.kill();
    running.kill();
}
