//! A pod's namespaces and its holder's own tree.

use std::fs;

use carpel_proto::holder::Setup;
use carpel_proto::holder::error::Code;
use carpel_proto::holder::request::Call;

use crate::common::{Pod, plain};

fn namespace(pid: impl std::fmt::Display, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.display().to_string()
}

#[test]
fn a_pod_has_the_namespaces_it_asked_for() {
    let pod = Pod::new();
    let own = |kind| namespace(pod.pid(), kind) != namespace("self", kind);
    assert!(own("net") && own("ipc") && own("uts") && own("mnt"));
    assert!(!own("pid") && !own("cgroup") && !own("user"));

    let host = Pod::with(&Setup {
        pod_id: "host".into(),
        ..Setup::default()
    });
    let own = |kind| namespace(host.pid(), kind) != namespace("self", kind);
    assert!(own("mnt") && !own("net") && !own("ipc") && !own("uts"));
    assert!(host.connect().netns.is_none());
}

#[test]
fn the_network_namespace_is_handed_out() {
    let pod = Pod::new();
    let netns = pod.connect().netns.unwrap();
    let inode = rustix::fs::fstat(netns).unwrap().st_ino;
    assert_eq!(namespace(pod.pid(), "net"), format!("net:[{inode}]"));
}

#[test]
fn a_holder_keeps_no_mount_of_the_host() {
    let pod = Pod::new();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pod.pid())).unwrap();
    let mut points: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').nth(4).unwrap())
        .collect();
    points.sort_unstable();
    assert_eq!(points, ["/", "/proc", "/shm"]);
    assert!(!mounts.contains("master:") && !mounts.contains("shared:"));
    let root = mounts.lines().find(|line| line.contains(" / / ")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
}

#[test]
fn loopback_works_in_a_pod() {
    let pod = Pod::new();
    let netns = pod.connect().netns.unwrap();
    std::thread::spawn(move || {
        carpel_sys::namespace::join(netns, carpel_sys::namespace::Kinds::NET).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn nothing_goes_before_setup_and_a_failed_one_ends_the_holder() {
    let mut pod = Pod::unborn();
    assert_eq!(pod.start("one").unwrap_err().code, Code::FailedPrecondition);
    let bad = Setup {
        sysctls: [("kernel.core_pattern".into(), "|/x".into())].into(),
        ..plain()
    };
    let refused = pod.daemon.call(Call::Setup(bad), &[]).map(drop);
    assert_eq!(refused.unwrap_err().code, Code::Invalid);
    assert!(!pod.ended().success());
}
