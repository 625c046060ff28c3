//! Against the cgroups of this host, below a root of the test's own.

use std::io::Write;
use std::process::{Child, Command};

use carpel_cgroup::{Cgroup, Hierarchies, Limits, Use};

struct Root {
    all: Hierarchies,
    path: String,
}

impl Root {
    fn new(name: &str) -> Self {
        let path = format!("/carpel-test-{name}-{}", std::process::id());
        Self {
            all: Hierarchies::detect().unwrap(),
            path,
        }
    }

    fn create(&self, name: &str, limits: &Limits) -> Cgroup {
        self.all
            .create(&format!("{}/{name}", self.path), Use::Container, limits)
            .unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let root = self.all.open(&self.path).unwrap();
        root.kill().unwrap();
        root.remove().unwrap();
    }
}

fn sleeper(group: &Cgroup) -> Child {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    join(group, child.id());
    child
}

fn join(group: &Cgroup, pid: u32) {
    for procs in group.procs().unwrap() {
        std::fs::File::from(procs)
            .write_all(pid.to_string().as_bytes())
            .unwrap();
    }
}

#[test]
fn limits_are_set_and_statistics_read() {
    let root = Root::new("limits");
    let limits = Limits {
        memory: 64 << 20,
        pids: 20,
        cpu_shares: 512,
        ..Limits::default()
    };
    let group = root.create("a", &limits);
    let mut child = sleeper(&group);
    assert_eq!(group.pids().unwrap(), [i32::try_from(child.id()).unwrap()]);
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.limit, Some(64 << 20));
    assert_eq!(stats.pids.current, 1);
    assert_eq!(group.oom_kills().unwrap(), 0);
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn kill_takes_the_groups_below_too_and_remove_leaves_nothing() {
    let root = Root::new("kill");
    let group = root.create("a", &Limits::default());
    let path = format!("{}/a", root.path);
    let inside = root.all.create_inside(&path, "exec-1").unwrap();
    let (mut outer, mut inner) = (sleeper(&group), sleeper(&inside));
    assert_eq!(inside.pids().unwrap(), [i32::try_from(inner.id()).unwrap()]);
    assert_eq!(group.pids().unwrap().len(), 2);
    group.kill().unwrap();
    outer.wait().unwrap();
    inner.wait().unwrap();
    group.remove().unwrap();
    assert!(
        !root
            .all
            .children(&root.path)
            .unwrap()
            .contains(&"a".to_owned())
    );
    group.kill().unwrap();
    group.remove().unwrap();
}

#[test]
fn killing_an_exec_spares_its_container() {
    let root = Root::new("exec");
    let group = root.create("a", &Limits::default());
    let inside = root
        .all
        .create_inside(&format!("{}/a", root.path), "exec-1")
        .unwrap();
    let (mut outer, mut inner) = (sleeper(&group), sleeper(&inside));
    inside.kill().unwrap();
    inner.wait().unwrap();
    assert!(outer.try_wait().unwrap().is_none());
    group.kill().unwrap();
    outer.wait().unwrap();
}

#[test]
fn want_of_memory_is_counted() {
    let root = Root::new("oom");
    let limits = Limits {
        memory: 8 << 20,
        memory_swap: 8 << 20,
        ..Limits::default()
    };
    let group = root.create("a", &limits);
    let mut child = Command::new("sh")
        .args([
            "-c",
            "read go; dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null",
        ])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    join(&group, child.id());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(group.oom_kills().unwrap() > 0);
}

#[test]
fn a_limit_without_controller_is_refused_unless_zero() {
    let root = Root::new("lack");
    let zero = Limits {
        hugepages: vec![("1PB".into(), 0)],
        ..Limits::default()
    };
    root.create("zero", &zero);
    let some = Limits {
        hugepages: vec![("1PB".into(), 1)],
        ..Limits::default()
    };
    assert!(
        root.all
            .create(&format!("{}/some", root.path), Use::Container, &some)
            .is_err()
    );
}
