//! One clear line, and the right exit code.

use std::process::Command;

use tonic::Code;

use crate::harness::Harness;

#[test]
fn mistakes_in_a_manifest_are_told_without_a_runtime() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pod1.yaml");
    let text = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    image: img:1
    ports:
    - containerPort: 80
      hostPort: 99999
    livenessProbe:
      httpGet: {port: 80}
";
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_carpel"))
        .args(["-s", "/none.sock", "create", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    let file = file.display();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "carpel: {file}:10:17: spec.containers[0].ports[0].hostPort: 99999 is not a port \
             (1-65535)\ncarpel: {file}:11:5: spec.containers[0].livenessProbe: only a kubelet can \
             serve this; remove it\n"
        )
    );
}

#[test]
fn a_runtime_that_is_not_there() {
    let carpel = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_carpel"))
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, told) = carpel(&["-s", "/none/x.sock", "get", "pods"]);
    assert_eq!(code, Some(1));
    assert!(
        told.starts_with("carpel: cannot reach the runtime at /none/x.sock: No such file"),
        "{told}"
    );
    let (code, told) = carpel(&["-s", "/none/x.sock", "health", "--wait", "50ms"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("/none/x.sock"), "{told}");
    let (code, told) = carpel(&["get", "poods"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("poods"), "{told}");
}

#[test]
fn what_the_runtime_says_is_one_line() {
    let harness = Harness::new();
    let broken = (Code::Unavailable, "starting\n  up");
    harness.fake.state().broken.insert("ListPodSandbox", broken);
    let told = harness.carpel(&["get", "pods"]).fail(1);
    assert_eq!(told, "carpel: list pods: not available: starting; up\n");
    harness
        .fake
        .state()
        .broken
        .insert("ExecSync", (Code::DeadlineExceeded, ""));
    let told = harness.carpel(&["version"]).succeed();
    assert!(
        told.contains("Client: carpel") && told.contains("Server: fake 1.2.3 (CRI v1)"),
        "{told}"
    );
}

#[test]
fn any_cri_socket_will_do_and_may_be_a_url() {
    let harness = Harness::new();
    let url = format!("unix://{}", harness.path("cri.sock"));
    assert!(
        harness
            .carpel(&["-s", &url, "version"])
            .succeed()
            .contains("fake")
    );
}
