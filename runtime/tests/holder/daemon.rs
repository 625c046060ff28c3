//! The daemon comes, goes, is replaced, and talks nonsense.

use std::time::Duration;

use carpel_proto::holder::container_state::Status;
use carpel_proto::holder::error::Code;
use carpel_proto::holder::request::Call;
use carpel_proto::holder::{CreateContainer, DeleteContainer, PROTOCOL, Shutdown, StartContainer};

use crate::common::{Extra, Pod, is_alive, wait};

#[test]
fn a_new_daemon_is_told_everything() {
    let mut pod = Pod::new();
    assert_eq!(pod.daemon.hello.protocol, PROTOCOL);
    assert_eq!(
        pod.daemon.hello.pod_id, "",
        "that one came before the setup"
    );
    pod.create("made", "true");
    let pid = pod.run_until("runs", "echo up; sleep 100", "up");
    pod.run("ended", "echo done; exit 3");
    let daemon = pod.connect();
    let hello = &daemon.hello;
    assert_eq!((hello.pod_id.as_str(), hello.last_seq), ("pod", 1));
    assert!(daemon.netns.is_some());
    let state = |id| {
        hello
            .containers
            .iter()
            .find(|c| c.container_id == id)
            .unwrap()
    };
    assert_eq!(state("made").status(), Status::Created);
    assert_eq!(
        (state("runs").status(), state("runs").pid),
        (Status::Running, pid)
    );
    assert_eq!(
        (state("ended").status(), state("ended").exit_code),
        (Status::Exited, 3)
    );
    assert_eq!(state("ended").log.unwrap().written_bytes, 4);
    assert_eq!(hello.containers.len(), 3);
}

#[test]
fn a_pod_lives_on_without_a_daemon() {
    let mut pod = Pod::new();
    let script = "echo one; sleep 0.2; echo two; exit 6";
    pod.create("one", script);
    pod.start("one").unwrap();
    let pid = pod.run_until("two", "echo up; sleep 100", "up");
    // A connection that nobody reads, and that ends at once.
    pod.daemon = pod.connect();
    pod.daemon.hang_up();
    std::thread::sleep(Duration::from_millis(500));
    let mut daemon = pod.connect();
    let state = |id: &str| {
        let all = daemon.hello.containers.iter();
        all.clone().find(|c| c.container_id == id).unwrap().clone()
    };
    assert_eq!(
        (state("one").status(), state("one").exit_code),
        (Status::Exited, 6)
    );
    assert_eq!(pod.log("one"), ["stdout F one", "stdout F two"]);
    assert!(is_alive(pid) && state("two").status() == Status::Running);
    assert_eq!(daemon.hello.last_seq, 1);
    let id = daemon.send(Some(Call::Shutdown(Shutdown {})), &[]);
    daemon.answer(id).unwrap();
}

#[test]
fn a_second_connection_replaces_the_first() {
    let mut pod = Pod::new();
    let second = pod.connect();
    assert!(pod.daemon.is_closed());
    pod.daemon = second;
    assert_eq!(pod.run("one", "exit 1").exit_code, 1);
}

#[test]
fn garbage_ends_the_connection_and_not_the_pod() {
    let mut pod = Pod::new();
    let pid = pod.run_until("one", "echo up; sleep 100", "up");
    for garbage in [&[0xff; 100][..], b"\x08", &[0; 65_000]] {
        pod.daemon.send_raw(garbage);
        assert!(pod.daemon.is_closed());
        pod.daemon = pod.connect();
    }
    let too_long = vec![0; 70_000];
    pod.daemon.send_raw(&too_long);
    assert!(pod.daemon.is_closed());
    pod.daemon = pod.connect();
    assert!(is_alive(pid));
    pod.delete("one");
}

#[test]
fn an_unknown_call_is_unsupported() {
    let mut pod = Pod::new();
    let id = pod.daemon.send(None, &[]);
    let refused = pod.daemon.answer(id).map(drop).unwrap_err();
    assert_eq!(refused.code, Code::Unsupported);
}

#[test]
fn descriptors_that_are_not_there_are_named() {
    let mut pod = Pod::new();
    let files = pod.open_files();
    let call = CreateContainer {
        container_id: "one".into(),
        spec_fd: 7,
        ..CreateContainer::default()
    };
    let refused = pod
        .daemon
        .call(Call::Create(call), &[])
        .map(drop)
        .unwrap_err();
    assert_eq!(refused.code, Code::Invalid);
    assert!(refused.message.contains("spec_fd"), "{}", refused.message);
    assert_eq!(pod.open_files(), files);
}

#[test]
fn a_daemon_that_does_not_read_is_cut_off() {
    let mut pod = Pod::new();
    pod.run("one", "true");
    let call = StartContainer {
        container_id: "one".into(),
        oci: None,
    };
    let mut blind = pod.connect();
    let cut = (0..20_000).any(|_| {
        std::thread::sleep(Duration::from_micros(100));
        !blind.try_send(&Call::Start(call.clone()))
    });
    assert!(cut);
    drop(blind);
    pod.daemon = pod.connect();
    assert_eq!(pod.daemon.hello.containers.len(), 1);
    assert_eq!(pod.run("two", "exit 2").exit_code, 2);
}

#[test]
fn other_containers_go_on_while_one_is_made() {
    let mut pod = Pod::new();
    pod.create("one", "exit 4");
    // Both go out before an answer is read.
    let start = StartContainer {
        container_id: "one".into(),
        oci: None,
    };
    let start = pod.daemon.send(Some(Call::Start(start)), &[]);
    let unknown = pod.daemon.send(None, &[]);
    let mut answers = [false; 2];
    for _ in 0..2 {
        let id = pod.daemon.any_answer();
        answers[usize::from(id == unknown)] = id == unknown || id == start;
    }
    assert_eq!(answers, [true, true]);
    assert_eq!(pod.daemon.container_exit("one").exit_code, 4);
}

#[test]
fn a_container_whose_daemon_went_unanswered_is_undone() {
    let mut pod = Pod::new();
    pod.send_create("one", "true", &Extra::default());
    pod.daemon.hang_up();
    wait("the container's end", || {
        let known = pod.connect().hello.containers.len();
        (known == 0 && pod.group.pids().is_empty()).then_some(())
    });
    pod.daemon = pod.connect();
    // Its id is free again.
    let made = wait("a worker's end", || {
        pod.create_with("one", "true", &Extra::default()).ok()
    });
    assert!(is_alive(made));
}

#[test]
fn a_container_can_be_deleted_while_it_is_made() {
    let mut pod = Pod::new();
    let create = pod.send_create("one", "true", &Extra::default());
    let call = DeleteContainer {
        container_id: "one".into(),
    };
    let delete = pod.daemon.send(Some(Call::Delete(call)), &[]);
    assert_eq!(pod.daemon.any_answer(), create);
    assert_eq!(pod.daemon.any_answer(), delete);
    assert!(pod.group.pids().is_empty());
    assert!(pod.connect().hello.containers.is_empty());
}
