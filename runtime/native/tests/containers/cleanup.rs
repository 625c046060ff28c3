//! What a case leaves behind that failed halfway.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

/// Where cgroups of the cases may be.
const CGROUPS: [&str; 5] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/cpu",
    "/sys/fs/cgroup/memory",
];

/// Processes whose case is gone become children of this one.
pub(crate) fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// Ends all children, and removes the cgroups of the case with this pid.
pub(crate) fn after(case: u32) {
    for _ in 0..100 {
        let children = children();
        if children.is_empty() {
            break;
        }
        for child in children {
            rustix::process::kill_process(child, Signal::KILL).ok();
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(5));
    }
    let prefix = format!("carpel-native-{case}-");
    for parent in CGROUPS
        .map(Path::new)
        .iter()
        .filter(|path| path.join("cgroup.procs").exists())
    {
        for entry in fs::read_dir(parent).unwrap().filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir(entry.path()).ok();
            }
        }
    }
}

fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(Result::ok);
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .collect::<Vec<_>>()
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}
