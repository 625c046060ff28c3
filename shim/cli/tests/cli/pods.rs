//! From a manifest to a pod and back to nothing.

use std::path::Path;

use carpel_proto::cri;
use tonic::Code;

use crate::harness::Harness;

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  terminationGracePeriodSeconds: 4
  volumes:
  - name: data
    emptyDir: {}
  containers:
  - name: front
    image: img:1
    volumeMounts: [{name: data, mountPath: /data}]
  - name: back
    image: img:1
    volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
";

fn harness() -> Harness {
    let harness = Harness::new();
    harness.fake.add_image("img:1");
    harness
}

#[test]
fn a_pod_is_made_shown_and_deleted() {
    let harness = harness();
    let file = harness.write("pod.yaml", POD.as_bytes());
    assert_eq!(
        harness.carpel(&["create", "-f", &file]).succeed(),
        "pod/web created\n"
    );
    {
        let state = harness.fake.state();
        let (config, _) = state.pods.values().next().unwrap();
        assert_eq!(config.hostname, "web");
        let mut mounts = state.containers.values().map(|c| &c.config.mounts[0]);
        let (one, two) = (mounts.next().unwrap(), mounts.next().unwrap());
        assert_eq!(one.host_path, two.host_path);
        assert!(Path::new(&one.host_path).is_dir());
        assert!(one.readonly != two.readonly);
    }
    assert_eq!(harness.fake.called("PullImage"), 0);
    let table = harness.carpel(&["get", "pods", "-o", "wide"]).succeed();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "NAME",
            "READY",
            "STATUS",
            "AGE",
            "IP",
            "POD-ID",
            "NAMESPACE"
        ]
    );
    assert_eq!(rows[1][..5], ["web", "2/2", "Running", "65s", "10.1.2.3"]);
    assert_eq!(harness.pod_dirs(), 1);
    assert_eq!(
        harness.carpel(&["delete", "-f", &file]).succeed(),
        "pod/web deleted\n"
    );
    assert_eq!(harness.pod_dirs(), 0);
    assert!(harness.fake.state().pods.is_empty());
    assert!(
        harness
            .carpel(&["delete", "web"])
            .fail(1)
            .contains("pod \"web\" is not there")
    );
    harness
        .carpel(&["delete", "web", "--ignore-not-found"])
        .succeed();
}

#[test]
fn the_same_name_twice_is_refused_before_anything_happens() {
    let harness = harness();
    let file = harness.write("pod.yaml", POD.as_bytes());
    harness.carpel(&["create", "-f", &file]).succeed();
    let told = harness.carpel(&["create", "-f", &file]).fail(1);
    assert!(told.contains("pod default/web exists already"), "{told}");
    assert_eq!(harness.fake.called("RunPodSandbox"), 1);
}

#[test]
fn stopping_uses_the_grace_of_the_pod_or_of_the_user() {
    let harness = harness();
    let file = harness.write("pod.yaml", POD.as_bytes());
    harness.carpel(&["create", "-f", &file]).succeed();
    assert_eq!(
        harness.carpel(&["stop", "web"]).succeed(),
        "pod/web stopped\n"
    );
    assert!(
        harness
            .fake
            .state()
            .containers
            .values()
            .all(|c| c.grace == Some(4))
    );
    assert!(
        harness
            .carpel(&["get", "pods"])
            .succeed()
            .contains("Stopped")
    );
    harness.carpel(&["delete", "web"]).succeed();
    harness.carpel(&["create", "-f", &file]).succeed();
    harness.carpel(&["stop", "web", "--grace", "0"]).succeed();
    assert!(
        harness
            .fake
            .state()
            .containers
            .values()
            .all(|c| c.grace == Some(0))
    );
}

#[test]
fn what_fails_half_way_is_undone_unless_kept() {
    let harness = harness();
    let file = harness.write("pod.yaml", POD.as_bytes());
    harness
        .fake
        .state()
        .broken
        .insert("StartContainer", (Code::Internal, "no more room"));
    let told = harness.carpel(&["create", "-f", &file]).fail(1);
    assert_eq!(
        told,
        "carpel: start container front: the runtime failed: no more room\n"
    );
    assert!(harness.fake.state().pods.is_empty());
    assert_eq!(harness.pod_dirs(), 0);
    harness.carpel(&["create", "-f", &file, "--keep"]).fail(1);
    assert_eq!(harness.fake.state().pods.len(), 1);
    assert_eq!(harness.pod_dirs(), 1);
}

#[test]
fn an_interrupted_create_is_undone() {
    let harness = harness();
    let text = POD.replace(
        "  containers:\n",
        "  initContainers: [{name: first, image: \"img:1\"}]\n  containers:\n",
    );
    let file = harness.write("pod.yaml", text.as_bytes());
    let child = harness.start_carpel(&["create", "-f", &file]);
    for _ in 0..500 {
        if harness.fake.called("StartContainer") > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "carpel: interrupted\n"
    );
    assert!(harness.fake.state().pods.is_empty());
    assert_eq!(harness.pod_dirs(), 0);
}

#[test]
fn init_containers_run_to_their_end_first() {
    let harness = harness();
    let text = |command: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  initContainers:\n  - {{name: \
             first, image: \"img:1\", command: [{command}]}}\n  containers:\n  - {{name: main, image: \
             \"img:1\"}}\n"
        )
    };
    let file = harness.write("pod.yaml", text("exit, \"0\"").as_bytes());
    harness.carpel(&["create", "-f", &file]).succeed();
    let calls = harness.fake.state().calls.join(" ");
    let order = "CreateContainer StartContainer ContainerStatus CreateContainer StartContainer";
    assert!(calls.contains(order), "{calls}");
    assert!(harness.carpel(&["get", "pods"]).succeed().contains("1/1"));
    harness.carpel(&["delete", "web"]).succeed();
    let file = harness.write("pod.yaml", text("exit, \"3\"").as_bytes());
    let told = harness.carpel(&["create", "-f", &file]).fail(1);
    assert!(
        told.contains("init container first ended with exit code 3\n  hello from first"),
        "{told}"
    );
    assert!(harness.fake.state().pods.is_empty());
}

#[test]
fn images_are_fetched_as_the_policy_says() {
    let harness = harness();
    let pod = |image: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - {{name: c, \
             image: \"{image}\"{policy}}}\n"
        )
    };
    let create = |image: &str, policy: &str| {
        let file = harness.write("pod.yaml", pod(image, policy).as_bytes());
        harness.carpel(&["create", "-f", &file])
    };
    let told = create("other:1", ", imagePullPolicy: Never").fail(1);
    assert!(
        told.contains("image other:1 is not there, and imagePullPolicy is Never"),
        "{told}"
    );
    assert_eq!(harness.fake.called("PullImage"), 0);
    create("img:1", ", imagePullPolicy: Always").succeed();
    assert_eq!(harness.fake.called("PullImage"), 1);
    harness.carpel(&["delete", "web"]).succeed();
    create("other:2", "").succeed();
    assert_eq!(harness.fake.called("PullImage"), 2);
    harness.carpel(&["delete", "web"]).succeed();
    let told = create("missing:1", "").fail(1);
    assert!(
        told.contains("pull missing:1: missing:1: the registry has no such image"),
        "{told}"
    );
    assert_eq!(harness.fake.called("RunPodSandbox"), 2);
}

#[test]
fn several_documents_from_stdin_and_a_container_that_ends() {
    let harness = harness();
    let two = "apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c, image: 'img:1', command: [exit, '5']}]}
---
{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\", \"namespace\": \"shop\"},
 \"spec\": {\"containers\": [{\"name\": \"c\", \"image\": \"img:1\"}]}}
";
    let done = harness.carpel_with(&["create", "-f", "-"], two.as_bytes());
    assert!(
        done.stderr()
            .contains("container c ended at once with exit code 5")
    );
    assert_eq!(done.succeed(), "pod/a created\npod/b created\n");
    let table = harness.carpel(&["get", "pods"]).succeed();
    assert!(
        table.contains("Error") && !table.contains("\nb "),
        "{table}"
    );
    let all = harness
        .carpel(&["get", "pods", "-A", "-o", "name"])
        .succeed();
    assert_eq!(all, "pod/a\npod/b\n");
    harness.carpel(&["delete", "--all", "-A"]).succeed();
    assert!(harness.fake.state().pods.is_empty());
}

#[test]
fn delete_goes_on_when_stopping_fails() {
    let harness = harness();
    let file = harness.write("pod.yaml", POD.as_bytes());
    harness.carpel(&["create", "-f", &file]).succeed();
    harness
        .fake
        .state()
        .broken
        .insert("StopContainer", (Code::Internal, "stuck"));
    let done = harness.carpel(&["delete", "web"]);
    assert!(
        done.stderr().contains("did not stop cleanly"),
        "{}",
        done.stderr()
    );
    assert_eq!(done.succeed(), "pod/web deleted\n");
    assert_eq!(harness.pod_dirs(), 0);
}

#[test]
fn a_pod_of_somebody_else_is_deleted_without_touching_files() {
    let harness = harness();
    let metadata = cri::PodSandboxMetadata {
        name: "../../../victim".to_owned(),
        namespace: "x".to_owned(),
        uid: "u".to_owned(),
        attempt: 0,
    };
    let config = cri::PodSandboxConfig {
        metadata: Some(metadata),
        ..Default::default()
    };
    harness
        .fake
        .state()
        .pods
        .insert("abcdef".to_owned(), (config, true));
    let victim = harness.write("victim_u", b"");
    harness.carpel(&["delete", "abcdef"]).succeed();
    assert!(Path::new(&victim).exists());
}

#[test]
fn earlier_sandboxes_of_a_pod_are_listed_on_demand_and_go_with_it() {
    let harness = harness();
    let metadata = |attempt| cri::PodSandboxMetadata {
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        uid: "u".to_owned(),
        attempt,
    };
    for (id, attempt) in [("aaa1", 0), ("aaa2", 1)] {
        let config = cri::PodSandboxConfig {
            metadata: Some(metadata(attempt)),
            ..Default::default()
        };
        let pods = &mut harness.fake.state().pods;
        pods.insert(id.to_owned(), (config, attempt == 1));
    }
    let rows = |args: &[&str]| harness.carpel(args).succeed().lines().count();
    assert_eq!(rows(&["get", "pods", "-o", "name"]), 1);
    assert_eq!(rows(&["get", "pods", "-o", "name", "--all"]), 2);
    harness.carpel(&["delete", "web"]).succeed();
    assert!(harness.fake.state().pods.is_empty());
}
