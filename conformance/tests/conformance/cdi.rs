//! Devices by name: the Container Device Interface.

use std::path::Path;

use carpel_conformance::{Node, Settings, spec};
use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused};

/// A node with two directories of specifications, the second one going first.
async fn node() -> anyhow::Result<Node> {
    let settings = Settings::default().images(&[spec::BUSYBOX]);
    Node::start(settings.cdi_directories(2)).await
}

fn directory(node: &Node, number: usize) -> std::path::PathBuf {
    node.cdi_directory(number)
}

/// A device that no runtime gives by itself (FUSE), so that its rule counts; runc before
/// 1.2 gives everybody tun.
const FUSE: (u32, u32) = (10, 229);

fn make_device(path: &Path) -> anyhow::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let number = makedev(FUSE.0.into(), FUSE.1.into());
    mknod(
        path,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o640),
        number,
    )?;
    Ok(())
}

fn write(directory: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    Ok(std::fs::write(directory.join(file), text)?)
}

fn specification(kind: &str, devices: &Value, common: &Value) -> String {
    json!({"cdiVersion": "0.7.0", "kind": kind, "devices": devices, "containerEdits": common})
        .to_string()
}

fn asking(name: &str, devices: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        cdi_devices: devices
            .iter()
            .map(|&name| cri::CdiDevice {
                name: name.to_owned(),
            })
            .collect(),
        ..spec::sleeper(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_brings_all_that_its_specification_says() -> Outcome {
    let node = node().await?;
    let host = node.folder("host")?;
    make_device(&host.join("card"))?;
    std::fs::write(host.join("library"), "driver\n")?;
    let devices = json!([{"name": "0", "containerEdits": {
        "env": ["CARD=zero=0", "PATH=/bin"],
        "additionalGids": [4242],
        "deviceNodes": [
            {"path": "/dev/cards/zero", "hostPath": host.join("card"), "permissions": "r"},
            {"path": "/dev/full-zero", "type": "c", "major": 1, "minor": 5, "fileMode": 292,
             "uid": 7, "gid": 8}],
        "mounts": [
            {"hostPath": host, "containerPath": "/opt/driver", "options": ["ro", "nosuid", "rbind"]},
            {"hostPath": host.join("library"), "containerPath": "/opt/one", "options": ["rbind", "rw"]}],
    }}]);
    let common = json!({"env": ["VENDOR=here"]});
    write(
        &directory(&node, 0),
        "cards.json",
        &specification("v.com/card", &devices, &common),
    )?;
    let pod = Pod::run(&node, spec::pod("cdi")).await?;
    let mut config = asking("c", &["v.com/card=0"]);
    config.envs = vec![cri::KeyValue {
        key: "CARD".into(),
        value: "of the client".into(),
    }];
    let security = spec::security(&mut config);
    security.run_as_user = Some(cri::Int64Value { value: 1001 });
    security.run_as_group = Some(cri::Int64Value { value: 1002 });
    let id = pod.start(&node, &config).await?;
    let run = async |script: &str| node.cri().output(&id, &["/bin/sh", "-c", script]).await;

    assert_eq!(run("echo $VENDOR $CARD $PATH").await?, "here zero=0 /bin\n");
    assert_eq!(run("id -G").await?, "1002 4242\n");
    let user = node.cri().container(&id).await?.user.unwrap_or_default();
    assert_eq!(
        user.linux.unwrap_or_default().supplemental_groups,
        [1002, 4242]
    );
    let nodes = "stat -c '%t:%T %a %u %g' /dev/cards/zero /dev/full-zero";
    // The owner that the file leaves open is the container's user.
    assert_eq!(run(nodes).await?, "a:e5 640 1001 1002\n1:5 444 7 8\n");
    assert_eq!(
        run("cat /opt/driver/library /opt/one").await?,
        "driver\ndriver\n"
    );
    let mounts = run("grep -c ' /opt/driver ro,nosuid' /proc/self/mountinfo").await?;
    assert_eq!(mounts, "1\n");
    // Not asked for by the client, so not told as its mounts.
    assert!(node.cri().container(&id).await?.mounts.is_empty());

    let mut root = asking("root", &["v.com/card=0"]);
    root.linux = None;
    let id = pod.start(&node, &root).await?;
    let open = async |script: &str| node.cri().exec(&id, &["sh", "-c", script], 30).await;
    assert_eq!(open(": < /dev/cards/zero").await?.exit_code, 0);
    let denied = open(": > /dev/cards/zero").await?;
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("Operation not permitted"), "{said}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_found_by_place_and_read_again_when_they_change() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("files")).await?;
    let (low, high) = (directory(&node, 0), directory(&node, 1));
    let env =
        |value: &str| json!([{"name": "a", "containerEdits": {"env": [format!("FROM={value}")]}}]);
    let ask = async |name: &str| {
        let id = pod.start(&node, &asking(name, &["v/c=a"])).await?;
        node.cri()
            .output(&id, &["sh", "-c", "echo $FROM"])
            .await
            .map_err(anyhow::Error::from)
    };
    let result = node
        .cri()
        .create(&pod.id, &asking("none", &["v/c=a"]), &pod.config)
        .await;
    let places = [low.display().to_string(), high.display().to_string()];
    assert_refused(
        result,
        Code::InvalidArgument,
        &["v/c=a", &places[0], &places[1]],
    );

    write(
        &low,
        "a.json",
        &specification("v/c", &env("low"), &json!({})),
    )?;
    write(&low, "broken.json", "{")?;
    assert_eq!(ask("low").await?, "low\n");
    let yaml = "cdiVersion: \"0.5.0\"\nkind: v/c\ndevices:\n- name: a\n  containerEdits:\n    env:\n    - FROM=high\n";
    write(&high, "a.yaml", yaml)?;
    assert_eq!(ask("high").await?, "high\n");
    write(&high, "a.yaml", &yaml.replace("FROM=high", "FROM=changed"))?;
    assert_eq!(ask("changed").await?, "changed\n");
    write(
        &high,
        "b.json",
        &specification("v/c", &env("other"), &json!({})),
    )?;
    let result = node
        .cri()
        .create(&pod.id, &asking("twice", &["v/c=a"]), &pod.config)
        .await;
    assert_refused(
        result,
        Code::InvalidArgument,
        &["a.yaml", "b.json", "v/c=a"],
    );
    let result = node
        .cri()
        .create(&pod.id, &asking("unknown", &["v/c=b"]), &pod.config)
        .await;
    assert_refused(result, Code::InvalidArgument, &["v/c=b", "broken.json"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_is_refused_and_named() -> Outcome {
    let node = node().await?;
    let device = |name: &str, edits: Value| json!({"name": name, "containerEdits": edits});
    let devices = json!([
        device(
            "hook",
            json!({"hooks": [{"hookName": "createContainer", "path": "/usr/bin/v-hook"}]})
        ),
        device(
            "net",
            json!({"netDevices": [{"hostInterfaceName": "eth9", "name": "n"}]})
        ),
        device("rdt", json!({"intelRdt": {"closID": "c"}})),
        device(
            "gone",
            json!({"deviceNodes": [{"path": "/dev/no-such-device"}]})
        ),
        device(
            "unmounted",
            json!({"mounts": [{"hostPath": "/no/such/path", "containerPath": "/x"}]})
        ),
    ]);
    write(
        &directory(&node, 0),
        "v.json",
        &specification("v/c", &devices, &json!({})),
    )?;
    let pod = Pod::run(&node, spec::pod("refused")).await?;
    for (name, code, part) in [
        ("v/c=hook", Code::Unimplemented, "/usr/bin/v-hook"),
        ("v/c=net", Code::Unimplemented, "eth9"),
        ("v/c=rdt", Code::Unimplemented, "Intel RDT"),
        ("v/c=gone", Code::InvalidArgument, "/dev/no-such-device"),
        ("no-name", Code::InvalidArgument, "vendor/class=device"),
    ] {
        let result = node
            .cri()
            .create(&pod.id, &asking("c", &[name]), &pod.config)
            .await;
        assert_refused(result, code, &[name, part]);
    }
    let unmounted = asking("c", &["v/c=unmounted"]);
    let result = node.cri().create(&pod.id, &unmounted, &pod.config).await;
    assert_refused(result, Code::InvalidArgument, &["/no/such/path"]);
    // Only the field counts: an annotation may come from whoever wrote the pod.
    let mut smuggled = spec::sleeper("annotated");
    smuggled
        .annotations
        .insert("cdi.k8s.io/x".into(), "v/c=hook".into());
    pod.start(&node, &smuggled).await?;
    assert_eq!(node.cri().list_containers(None).await?.len(), 1);
    node.finish().await
}
