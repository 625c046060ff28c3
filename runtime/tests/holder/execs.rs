//! Commands beside a container's first process.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use carpel_proto::holder::error::Code;
use carpel_proto::holder::request::Call;
use carpel_proto::holder::{Exec, Setup};
use carpel_sys::memfd;

use crate::common::{Pod, is_alive, plain, wait};

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_command_runs_in_the_container() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up >/tmp/file; echo up; sleep 100", "up");
    let script = "cat /tmp/file; hostname; exit 5";
    let output = pod.exec("one", "x", script).unwrap();
    assert_eq!(pod.daemon.exec_exit("x"), 5);
    assert_eq!(read(output), "up\ntest-pod\n");
    // What it writes is not the container's output.
    assert_eq!(pod.log("one"), ["stdout F up"]);
}

#[test]
fn a_command_without_a_cgroup_is_in_the_containers() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let group = pod.group.pids().len();
    let _output = pod.exec("one", "x", "sleep 100").unwrap();
    wait("the command in the cgroup", || {
        (pod.group.pids().len() > group).then_some(())
    });
    pod.signal_exec("x", 9);
    assert_eq!(pod.daemon.exec_exit("x"), 137);
}

#[test]
fn many_commands_run_at_once() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let outputs: Vec<File> = (0..20)
        .map(|n| {
            let script = format!("echo {n}; exit {n}");
            pod.exec("one", &format!("x{n}"), &script).unwrap()
        })
        .collect();
    for (n, output) in outputs.into_iter().enumerate() {
        assert_eq!(read(output), format!("{n}\n"));
        let exit = pod.daemon.exec_exit(&format!("x{n}"));
        assert_eq!(usize::try_from(exit), Ok(n));
    }
}

#[test]
fn a_program_that_is_missing_is_told() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let process = r#"{"args":["/bin/nothing"],"cwd":"/","user":{"uid":0,"gid":0}}"#;
    let fds = [memfd::sealed("process", process.as_bytes()).unwrap()];
    let call = Exec {
        container_id: "one".into(),
        exec_id: "x".into(),
        ..Exec::default()
    };
    let refused = pod.daemon.call(Call::Exec(call), &fds).map(drop);
    assert_eq!(refused.unwrap_err().code, Code::CannotExecute);
    // Its id is free again.
    pod.exec("one", "x", "true").unwrap();
    assert_eq!(pod.daemon.exec_exit("x"), 0);
}

#[test]
fn what_a_command_leaves_in_its_cgroup_is_killed() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let group = pod.group.child("exec");
    let script = "setsid sleep 100 & setsid sleep 100 & exit 3";
    let output = pod.exec_in("one", "x", script, Some(&group), false);
    assert_eq!(pod.daemon.exec_exit("x"), 3);
    assert!(group.pids().is_empty());
    assert_eq!(read(output.unwrap()), "");
}

#[test]
fn a_signal_reaches_every_process_of_a_command() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let group = pod.group.child("exec");
    let _output = pod.exec_in("one", "x", "sleep 100; true", Some(&group), false);
    let pids = wait("its two processes", || {
        Some(group.pids()).filter(|pids| pids.len() == 2)
    });
    pod.signal_exec("x", 15);
    assert_eq!(pod.daemon.exec_exit("x"), 143);
    assert!(!pids.into_iter().any(is_alive));
    // It has ended, which is no error.
    pod.signal_exec("x", 15);
}

#[test]
fn commands_end_with_their_container() {
    let mut pod = Pod::with(&Setup {
        shared_pid: true,
        ..plain()
    });
    pod.run_until("one", "echo up; sleep 100", "up");
    let group = pod.group.child("exec");
    let _output = pod.exec_in("one", "x", "sleep 100", Some(&group), false);
    pod.signal("one", 9, false).unwrap();
    assert_eq!(pod.daemon.exec_exit("x"), 137);
    pod.daemon.container_exit("one");
}

#[test]
fn a_command_may_end_with_its_daemon() {
    let mut pod = Pod::new();
    pod.run_until("one", "echo up; sleep 100", "up");
    let (bound, free) = (pod.group.child("bound"), pod.group.child("free"));
    let _one = pod.exec_in("one", "x", "sleep 100", Some(&bound), true);
    let _two = pod.exec_in("one", "y", "sleep 100", Some(&free), false);
    pod.daemon = pod.connect();
    wait("the end of the command", || {
        bound.pids().is_empty().then_some(())
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(free.pids().len(), 1);
    pod.signal_exec("y", 9);
}
