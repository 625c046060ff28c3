//! get, describe, logs and exec.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};

use carpel_proto::cri::ContainerState;
use tonic::Code;

use crate::harness::Harness;

/// A pod `web` with containers `front` and `back`.
fn harness() -> Harness {
    let harness = Harness::new();
    harness.fake.add_image("img:1");
    let text = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: front, image: 'img:1'}, {name: back, image: 'img:1'}]}
";
    harness
        .carpel_with(&["create", "-f", "-"], text.as_bytes())
        .succeed();
    harness
}

fn log_path(harness: &Harness, name: &str) -> String {
    let state = harness.fake.state();
    let container = state
        .containers
        .values()
        .find(|c| c.config.metadata.as_ref().is_some_and(|m| m.name == name))
        .unwrap();
    format!(
        "{}/{}",
        state.pods[&container.pod].0.log_directory, container.config.log_path
    )
}

#[test]
fn json_and_yaml_are_objects_or_lists() {
    let harness = harness();
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&harness.carpel(args).succeed()).unwrap()
    };
    let list = json(&["get", "pods", "-o", "json"]);
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
    let pod = json(&["get", "pod", "web", "-o", "json"]);
    assert_eq!(pod["status"]["podIP"], "10.1.2.3");
    assert_eq!(pod["status"]["containerStatuses"][1]["name"], "back");
    let yaml = harness
        .carpel(&["get", "pod", "web", "-o", "yaml"])
        .succeed();
    assert!(
        yaml.contains("podIP: \"10.1.2.3\"") && yaml.contains("kind: Pod"),
        "{yaml}"
    );
    let images = json(&["images", "-o", "json"]);
    assert_eq!(images["items"][0]["repoTags"][0], "img:1");
}

#[test]
fn selectors_scopes_and_what_is_not_there() {
    let harness = harness();
    assert!(
        harness
            .carpel(&["get", "pods", "-l", "app=web"])
            .succeed()
            .contains("web")
    );
    let none = harness.carpel(&["get", "pods", "-l", "app=db"]);
    assert!(none.stderr().contains("-A shows all"));
    assert_eq!(none.succeed(), "");
    assert!(
        harness
            .carpel(&["get", "pods", "-l", "a in (b)"])
            .fail(2)
            .contains("label condition")
    );
    assert!(
        harness
            .carpel(&["get", "pod", "none"])
            .fail(1)
            .contains("pod \"none\" is not there")
    );
}

#[test]
fn containers_that_ended_are_listed_on_demand() {
    let harness = harness();
    for container in harness.fake.state().containers.values_mut() {
        if container.config.metadata.as_ref().unwrap().name == "back" {
            (container.state, container.exit_code) = (ContainerState::ContainerExited, 0);
        }
    }
    let running = harness.carpel(&["get", "containers"]).succeed();
    assert!(
        running.contains("front") && !running.contains("back"),
        "{running}"
    );
    let all = harness
        .carpel(&["get", "containers", "--all", "-o", "wide"])
        .succeed();
    assert!(all.contains("back") && all.contains("Completed"), "{all}");
    let one = harness
        .carpel(&["get", "container", "web/back", "-o", "json"])
        .succeed();
    assert!(one.contains("\"terminated\""), "{one}");
}

#[test]
fn describe_says_everything() {
    let harness = harness();
    let pod = harness.carpel(&["describe", "pod", "web"]).succeed();
    for part in [
        "Namespace:",
        "app=web",
        "10.1.2.3",
        "  front:",
        "  back:",
        "img:1",
    ] {
        assert!(pod.contains(part), "{part}: {pod}");
    }
    let container = harness
        .carpel(&["describe", "container", "web/front"])
        .succeed();
    assert!(
        container.contains("default/web") && container.contains("front/0.log"),
        "{container}"
    );
    assert!(
        harness
            .carpel(&["describe", "image", "img:1"])
            .succeed()
            .contains("4.2MB")
    );
}

#[test]
fn logs_of_one_container_whole_or_in_part() {
    let harness = harness();
    let log = log_path(&harness, "front");
    fs::write(
        &log,
        "2026-11-23T10:00:00.1Z stdout P one \n2026-11-23T10:00:00.2Z stderr F two\n\
         2026-11-23T10:00:00.3Z stdout F half\n2026-11-23T10:00:00.4Z stdout F three\n",
    )
    .unwrap();
    let done = harness.carpel(&["logs", "web"]);
    assert!(
        done.stderr().contains("container front of front, back"),
        "{}",
        done.stderr()
    );
    assert_eq!(done.succeed(), "two\none half\nthree\n");
    let logs = |args: &[&str]| {
        harness
            .carpel(&[&["logs", "web", "-c", "front"], args].concat())
            .succeed()
    };
    assert_eq!(logs(&["--tail", "1"]), "three\n");
    assert_eq!(logs(&["--tail", "0"]), "");
    assert_eq!(logs(&["--since", "1s"]), "");
    assert!(logs(&["--timestamps"]).starts_with("2026-11-23T10:00:00.2Z two\n"));
    assert_eq!(
        harness.carpel(&["logs", "web", "-c", "back"]).succeed(),
        "hello from back\n"
    );
    let told = harness.carpel(&["logs", "web", "-c", "side"]).fail(1);
    assert!(
        told.contains("no container \"side\"; it has front, back"),
        "{told}"
    );
    assert!(
        harness
            .carpel(&["logs", "web", "-c", "back", "-p"])
            .fail(1)
            .contains("before this one")
    );
}

#[test]
fn following_goes_over_a_rotation_to_the_end_of_the_container() {
    let harness = harness();
    let log = log_path(&harness, "front");
    let mut child = harness.start_carpel(&["logs", "-f", "web", "-c", "front", "--tail", "1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "hello from front\n");
    let entry = |text: &str| format!("2026-11-23T10:00:01Z stdout F {text}\n");
    let append = |path: &str, text: &str| {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(entry(text).as_bytes()).unwrap();
    };
    append(&log, "before");
    assert_eq!(next(), "before\n");
    fs::rename(&log, format!("{log}.1")).unwrap();
    append(&log, "after");
    assert_eq!(next(), "after\n");
    let broken = (Code::Unavailable, "restarting");
    harness
        .fake
        .state()
        .broken
        .insert("ContainerStatus", broken);
    let asked = harness.fake.called("ContainerStatus");
    while harness.fake.called("ContainerStatus") == asked {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    append(&log, "meanwhile");
    assert_eq!(next(), "meanwhile\n");
    harness.fake.state().broken.clear();
    append(&log, "last");
    for container in harness.fake.state().containers.values_mut() {
        container.state = ContainerState::ContainerExited;
    }
    assert_eq!(next(), "last\n");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn exec_passes_output_and_exit_code_on() {
    let harness = harness();
    let told = harness
        .carpel(&["exec", "web", "-c", "back", "--", "echo", "-n", "x"])
        .succeed();
    assert_eq!(told, "-n x\n");
    assert_eq!(
        harness
            .carpel(&["exec", "web", "-c", "back", "--", "fail", "42"])
            .fail(42),
        "it failed\n"
    );
    assert_eq!(
        harness
            .carpel(&["exec", "web", "-c", "back", "--", "none"])
            .fail(127),
        "not found\n"
    );
    harness.carpel(&["exec", "web"]).fail(2);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let harness = harness();
    let log = log_path(&harness, "front");
    let line = "2026-11-23T10:00:00Z stdout F a line that is long enough to fill a pipe\n";
    fs::write(&log, line.repeat(50_000)).unwrap();
    let mut child = harness.start_carpel(&["logs", "web", "-c", "front"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success());
}
