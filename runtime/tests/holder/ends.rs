//! How things end: by signals, with orphans, with the pod.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carpel_proto::holder::Setup;
use carpel_proto::holder::event::What;
use serde_json::json;

use crate::common::{Extra, Group, Pod, is_alive, plain, spec, wait};

/// In the pod's shared PID namespace.
fn in_shared(pod: &Pod, script: &str) -> Extra {
    let init = pod.connect().hello.pod_init_pid;
    let mut spec = spec(script);
    spec["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "pid", "path": format!("/proc/{init}/ns/pid") }]);
    Extra {
        spec: Some(spec),
        ..Extra::default()
    }
}

fn shared() -> Pod {
    let mut pod = Pod::with(&Setup {
        shared_pid: true,
        ..plain()
    });
    // The look at its init took the connection's place.
    pod.daemon = pod.connect();
    pod
}

#[test]
fn a_signal_is_an_exit_code() {
    let mut pod = Pod::new();
    pod.run_until("one", "trap 'exit 9' TERM; echo up; sleep 100 & wait", "up");
    pod.signal("one", 15, false).unwrap();
    assert_eq!(pod.daemon.container_exit("one").exit_code, 9);

    pod.run_until("two", "echo up; sleep 100", "up");
    pod.signal("two", 9, true).unwrap();
    assert_eq!(pod.daemon.container_exit("two").exit_code, 137);
    assert!(pod.signal("two", 0, false).is_err());
}

#[test]
fn a_container_that_never_started_can_be_killed() {
    let mut pod = Pod::new();
    let pid = pod.create("one", "true");
    pod.signal("one", 9, false).unwrap();
    let exit = pod.daemon.container_exit("one");
    assert_eq!((exit.exit_code, exit.started_at_ns), (137, 0));
    assert!(!is_alive(pid));
}

#[test]
fn deleting_kills_what_runs_and_forgets_it() {
    let mut pod = Pod::new();
    let pid = pod.run_until("one", "echo up; sleep 100", "up");
    pod.delete("one");
    assert!(!is_alive(pid));
    assert!(pod.connect().hello.containers.is_empty());
    pod.daemon = pod.connect();
    // The id is free again.
    pod.create("one", "true");
    pod.delete("one");
}

#[test]
fn orphans_of_a_container_are_killed_with_it() {
    let mut pod = shared();
    let extra = in_shared(
        &pod,
        "setsid sleep 100 & setsid sleep 100 & echo up; exit 2",
    );
    pod.daemon = pod.connect();
    pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    let began = Instant::now();
    // They hold its output too: its end comes with theirs.
    assert_eq!(pod.daemon.container_exit("one").exit_code, 2);
    assert!(began.elapsed() < Duration::from_millis(1500));
    assert!(pod.group.pids().is_empty());
}

#[test]
fn a_process_elsewhere_does_not_hold_the_output_for_ever() {
    let mut pod = shared();
    let other = Group::new(&format!("carpel-holder-test-{}-else", std::process::id()));
    let extra = in_shared(&pod, "setsid sleep 100 & echo up; sleep 1; exit 2");
    pod.daemon = pod.connect();
    let first = pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    pod.wait_log("one", "up");
    let sleeper = wait("the process that will be elsewhere", || {
        let mut pids = pod.group.pids().into_iter().filter(|pid| *pid != first);
        pids.find(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline"));
            command.is_ok_and(|command| command.ends_with(b"100\0"))
        })
    });
    rustix::io::write(other.procs(), sleeper.to_string().as_bytes()).unwrap();
    assert_eq!(other.pids().len(), 1);
    let exit = pod.daemon.container_exit("one");
    assert_eq!(exit.exit_code, 2);
    let ended = Duration::from_nanos(u64::try_from(exit.exited_at_ns).unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(now - ended > Duration::from_secs(2));
    assert_eq!(other.pids().len(), 1, "it is not the container's to kill");
}

#[test]
fn containers_share_the_pods_pid_namespace() {
    let mut pod = shared();
    let script = "echo up; sleep 100";
    let extra = in_shared(&pod, script);
    pod.daemon = pod.connect();
    pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    pod.wait_log("one", "up");
    let extra = in_shared(&pod, "ps; kill -9 1; echo still");
    pod.daemon = pod.connect();
    pod.create_with("two", "", &extra).unwrap();
    pod.start("two").unwrap();
    assert_eq!(pod.daemon.container_exit("two").exit_code, 0);
    let log = pod.log("two").join("\n");
    assert!(
        log.contains("carpel-init") && log.contains("sleep 100"),
        "{log}"
    );
    assert!(log.contains("still"));
}

#[test]
fn the_end_of_the_pods_init_is_told() {
    let mut pod = shared();
    let init = pod.daemon.hello.pod_init_pid;
    let extra = in_shared(&pod, "echo up; sleep 100");
    pod.daemon = pod.connect();
    pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    pod.wait_log("one", "up");
    let init = rustix::process::Pid::from_raw(init).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    let status = pod.daemon.event(|what| match what {
        What::PodInitExited(exited) => Some(exited.wait_status),
        _ => None,
    });
    assert_eq!(status, 9);
    assert_eq!(pod.daemon.container_exit("one").exit_code, 137);
}

#[test]
fn orphans_are_reaped() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    // It comes from outside the container's PID namespace, as each exec does.
    let _output = pod.exec("one", "x", "setsid sleep 0.1 & exit 0").unwrap();
    assert_eq!(pod.daemon.exec_exit("x"), 0);
    let children = format!("/proc/{0}/task/{0}/children", pod.pid());
    wait("the orphan's removal", || {
        let text = fs::read_to_string(&children).unwrap();
        (text.split_whitespace().count() == 1).then_some(())
    });
}

#[test]
fn shutdown_leaves_no_process() {
    let mut pod = shared();
    let extra = in_shared(&pod, "setsid sleep 100 & echo up; sleep 100");
    pod.daemon = pod.connect();
    pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    pod.wait_log("one", "up");
    pod.run_until("two", "echo up; sleep 100", "up");
    pod.create("three", "true");
    let _output = pod.exec("two", "x", "sleep 100").unwrap();
    let mut pids = pod.group.pids();
    pids.push(pod.daemon.hello.pod_init_pid);
    assert!(pids.len() >= 6);
    assert!(pod.shutdown().success());
    assert!(!pids.into_iter().any(is_alive));
    assert!(pod.daemon.is_closed());
}

#[test]
fn an_empty_holder_can_be_shut_down() {
    assert!(Pod::unborn().shutdown().success());
    assert!(Pod::new().shutdown().success());
}

#[test]
fn nothing_but_a_kill_ends_a_holder() {
    let mut pod = Pod::new();
    let holder = rustix::process::Pid::from_raw(i32::try_from(pod.pid()).unwrap()).unwrap();
    for signal in [1, 2, 3, 10, 13, 14, 15, 35] {
        let handle = carpel_sys::pidfd::open(holder.as_raw_nonzero().get()).unwrap();
        carpel_sys::pidfd::signal(handle, signal).unwrap();
    }
    assert_eq!(pod.run("one", "exit 1").exit_code, 1);
}

#[test]
fn signals_are_as_a_program_expects() {
    let mut pod = Pod::new();
    // Not through a shell, which has signals of its own to ignore.
    let mut spec = spec("");
    spec["process"]["args"] = json!(["/bin/cat", "/proc/self/status"]);
    let extra = Extra {
        spec: Some(spec),
        ..Extra::default()
    };
    pod.create_with("one", "", &extra).unwrap();
    pod.start("one").unwrap();
    pod.daemon.container_exit("one");
    for wanted in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        let log = pod.log("one");
        assert!(log.iter().any(|line| line.ends_with(wanted)), "{log:#?}");
    }
}

#[test]
fn two_hundred_lives_leave_nothing_in_the_holder() {
    let mut pod = Pod::new();
    pod.run("first", "true");
    pod.delete("first");
    let (files, memory) = (pod.open_files(), resident(&pod));
    for n in 0..200 {
        let id = format!("c{n}");
        pod.run_until(&id, "echo up; sleep 100", "up");
        let output = pod.exec(&id, "x", "true").unwrap();
        assert_eq!(pod.daemon.exec_exit("x"), 0);
        drop(output);
        pod.delete(&id);
        pod.daemon.container_exit(&id);
    }
    assert_eq!(pod.open_files(), files);
    assert!(
        resident(&pod) < memory + 200,
        "{memory}, {} kB",
        resident(&pod)
    );
    let children = format!("/proc/{0}/task/{0}/children", pod.pid());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
}

/// Memory that no file stands for, in kB, whoever else shares it at the moment.
fn resident(pod: &Pod) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", pod.pid());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
