//! Containers from their creation to their exit, and what they write.

use std::time::Duration;

use carpel_proto::holder::Setup;
use carpel_proto::holder::error::Code;
use carpel_proto::holder::request::Call;
use serde_json::json;

use crate::common::{Extra, Pod, is_alive, plain, spec};

#[test]
fn a_container_is_in_the_pods_namespaces() {
    let mut pod = Pod::with(&Setup {
        sysctls: [("net.ipv4.ip_default_ttl".into(), "77".into())].into(),
        ..plain()
    });
    let script = "hostname; cat /proc/sys/net/ipv4/ip_default_ttl; cat /proc/net/dev; echo $$";
    let exit = pod.run("one", script);
    assert_eq!(exit.exit_code, 0);
    let log = pod.log("one");
    assert_eq!(log[..2], ["stdout F test-pod", "stdout F 77"]);
    assert!(log.iter().any(|line| line.contains("lo:")));
    assert_eq!(log.last().unwrap(), "stdout F 1");
}

#[test]
fn shared_memory_is_the_pods() {
    let mut pod = Pod::new();
    let mut with_shm = |id: &str, script: &str| {
        let mut spec = spec(script);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/shm", "type": "bind", "source": "/shm", "options": ["bind"],
        }));
        let extra = Extra {
            spec: Some(spec),
            ..Extra::default()
        };
        pod.create_with(id, "", &extra).unwrap();
        pod.start(id).unwrap();
        pod.daemon.container_exit(id).exit_code
    };
    assert_eq!(with_shm("one", "echo hello >/shm/x"), 0);
    assert_eq!(with_shm("two", "cat /shm/x"), 0);
    assert_eq!(pod.log("two"), ["stdout F hello"]);
}

#[test]
fn a_container_runs_only_when_it_is_started() {
    let mut pod = Pod::new();
    let pid = pod.create("one", "echo out; echo err >&2; exit 7");
    assert!(is_alive(pid));
    assert!(pod.group.pids().contains(&pid));
    std::thread::sleep(Duration::from_millis(50));
    assert!(pod.log("one").is_empty());

    let started = pod.start("one").unwrap();
    let exit = pod.daemon.container_exit("one");
    assert_eq!((exit.exit_code, exit.pid), (7, pid));
    assert_eq!(exit.started_at_ns, started);
    assert!(exit.exited_at_ns >= started && started > 1_600_000_000_000_000_000);
    let mut log = pod.log("one");
    log.sort_unstable();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    assert_eq!(exit.log.unwrap().written_bytes, 6);
    assert!(!is_alive(pid));
}

#[test]
fn output_without_a_newline_is_not_lost() {
    let mut pod = Pod::new();
    pod.run("one", "echo -n unfinished");
    assert_eq!(pod.log("one"), ["stdout F unfinished"]);
}

#[test]
fn a_megabyte_of_output_arrives_whole() {
    let mut pod = Pod::new();
    let exit = pod.run("one", "seq 1 100000; head -c 100000 /dev/zero | tr '\\0' x");
    let log = pod.log("one");
    assert_eq!(log[0], "stdout F 1");
    assert_eq!(log[99_999], "stdout F 100000");
    let long: String = log[100_000..]
        .iter()
        .map(|line| line.split_at("stdout P ".len()).1)
        .collect();
    assert_eq!(long, "x".repeat(100_000));
    assert_eq!(exit.log.unwrap().dropped_bytes, 0);
}

#[test]
fn standard_input_is_empty_or_stays_open() {
    let mut pod = Pod::new();
    assert_eq!(pod.run("closed", "cat; echo end").exit_code, 0);
    let extra = Extra {
        stdin: true,
        ..Extra::default()
    };
    let pid = pod.create_with("open", "echo go; cat", &extra).unwrap();
    pod.start("open").unwrap();
    pod.wait_log("open", "go");
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_alive(pid));
    pod.delete("open");
}

#[test]
fn a_program_that_is_missing_cannot_be_executed() {
    let mut pod = Pod::new();
    let mut spec = spec("");
    spec["process"]["args"] = json!(["/bin/nothing"]);
    let extra = Extra {
        spec: Some(spec),
        ..Extra::default()
    };
    let refused = match pod.create_with("one", "", &extra) {
        Err(refused) => refused,
        Ok(_) => {
            let refused = pod.start("one").unwrap_err();
            assert_eq!(pod.daemon.container_exit("one").exit_code, 128);
            refused
        }
    };
    assert_eq!(refused.code, Code::CannotExecute);
    assert!(
        refused.message.contains("/bin/nothing"),
        "{}",
        refused.message
    );
}

#[test]
fn a_bad_configuration_is_refused_and_leaves_nothing() {
    let mut pod = Pod::new();
    let bad = |spec| Extra {
        spec: Some(spec),
        ..Extra::default()
    };
    let refused = pod.create_with("one", "", &bad(json!([1]))).unwrap_err();
    assert_eq!(refused.code, Code::Invalid);
    let mut twice = spec("true");
    twice["mounts"][0]["type"] = json!("nofs");
    pod.create_with("one", "", &bad(twice)).unwrap_err();
    assert!(pod.connect().hello.containers.is_empty());
    assert!(pod.group.pids().is_empty());
}

#[test]
fn containers_are_known_by_id() {
    let mut pod = Pod::new();
    pod.create("one", "true");
    let again = pod.create_with("one", "true", &Extra::default());
    assert_eq!(again.unwrap_err().code, Code::AlreadyExists);
    let odd = pod.create_with("a b", "true", &Extra::default());
    assert_eq!(odd.map_err(|e| e.code), Err(Code::Invalid));
}

#[test]
fn calls_at_the_wrong_time_are_refused() {
    let mut pod = Pod::new();
    assert_eq!(pod.start("gone").unwrap_err().code, Code::NotFound);
    pod.create("one", "exit 0");
    let early = pod.exec("one", "x", "true").map(drop);
    assert_eq!(early.unwrap_err().code, Code::FailedPrecondition);
    pod.start("one").unwrap();
    assert_eq!(pod.start("one").unwrap_err().code, Code::FailedPrecondition);
    pod.daemon.container_exit("one");
    let late = pod.exec("one", "x", "true").map(drop);
    assert_eq!(late.unwrap_err().code, Code::FailedPrecondition);
    let dead = pod.signal("one", 15, false);
    assert_eq!(dead.unwrap_err().code, Code::FailedPrecondition);
    let again = pod.daemon.call(Call::Setup(plain()), &[]).map(drop);
    assert_eq!(again.unwrap_err().code, Code::AlreadyExists);
}
