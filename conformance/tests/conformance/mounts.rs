//! How mounts behave that a client asks for.

use std::path::Path;

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use k8s_cri::v1::MountPropagation as Propagation;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node};
use crate::newer;

fn bind(host: &Path, inside: &str) -> cri::Mount {
    cri::Mount {
        container_path: inside.to_owned(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

/// A folder of the node that is a mount of its own, of this kind.
fn mounted(node: &Node, name: &str, kind: &str) -> anyhow::Result<std::path::PathBuf> {
    let folder = node.folder(name)?;
    let path = folder.display().to_string();
    node.run("mount", &["-t", "tmpfs", "tmpfs", &path])?;
    node.run("mount", &[&format!("--make-{kind}"), &path])?;
    Ok(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_travel_as_far_as_was_asked_for() -> Outcome {
    let node = node().await?;
    let mut pod = spec::pod("propagation");
    spec::pod_security(&mut pod).privileged = true;
    let pod = Pod::run(&node, pod).await?;
    for (name, mode, inwards, outwards) in [
        ("private", Propagation::PropagationPrivate, false, false),
        (
            "slave",
            Propagation::PropagationHostToContainer,
            true,
            false,
        ),
        ("shared", Propagation::PropagationBidirectional, true, true),
    ] {
        let host = mounted(&node, name, "shared")?;
        for sub in ["from-host", "from-inside"] {
            node.inside(|| std::fs::create_dir(host.join(sub)))??;
        }
        let mut config = spec::sleeper(name);
        spec::security(&mut config).privileged = true;
        config.mounts = vec![cri::Mount {
            propagation: mode.into(),
            ..bind(&host, "/mnt")
        }];
        let id = pod.start(&node, &config).await?;
        assert_eq!(
            node.cri().container(&id).await?.mounts[0].propagation(),
            mode
        );
        let sub = host.join("from-host").display().to_string();
        node.run("mount", &["-t", "tmpfs", "tmpfs", &sub])?;
        node.inside(|| std::fs::write(host.join("from-host/file"), ""))??;
        let seen = node.cri().output(&id, &["ls", "/mnt/from-host"]).await?;
        assert_eq!(seen == "file\n", inwards, "{name}: {seen}");

        let script = "mount -t tmpfs tmpfs /mnt/from-inside && touch /mnt/from-inside/file";
        node.cri().output(&id, &["sh", "-c", script]).await?;
        let seen = node.inside(|| host.join("from-inside/file").exists())?;
        assert_eq!(seen, outwards, "{name}");
        node.cri().remove(&id).await?;
        node.run("umount", &["-R", &host.display().to_string()])?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_propagate_is_refused() -> Outcome {
    let node = node().await?;
    let host = mounted(&node, "private", "private")?;
    let pod = Pod::run(&node, spec::pod("private")).await?;
    for (mode, word) in [
        (Propagation::PropagationHostToContainer, "HOST_TO_CONTAINER"),
        (Propagation::PropagationBidirectional, "BIDIRECTIONAL"),
    ] {
        let mut config = spec::sleeper("c");
        config.mounts = vec![cri::Mount {
            propagation: mode.into(),
            ..bind(&host, "/mnt")
        }];
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        let path = host.display().to_string();
        assert_refused(result, Code::InvalidArgument, &[&path, word]);
    }
    node.run("umount", &[&host.display().to_string()])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_reaches_below_only_where_that_was_asked_for() -> Outcome {
    let node = node().await?;
    let host = mounted(&node, "host", "private")?;
    let sub = host.join("sub");
    node.inside(|| std::fs::create_dir(&sub))??;
    node.run(
        "mount",
        &["-t", "tmpfs", "tmpfs", &sub.display().to_string()],
    )?;
    let pod = Pod::run(&node, spec::pod("readonly")).await?;
    for (name, recursive) in [("plain", false), ("recursive", true)] {
        let mut config = spec::sleeper(name);
        config.mounts = vec![cri::Mount {
            readonly: true,
            recursive_read_only: recursive,
            ..bind(&host, "/mnt")
        }];
        let id = pod.start(&node, &config).await?;
        let touch = async |path: &str| node.cri().exec(&id, &["touch", path], 30).await;
        assert_ne!(touch("/mnt/file").await?.exit_code, 0, "{name}");
        let below = touch("/mnt/sub/file").await?;
        assert_eq!(below.exit_code == 0, !recursive, "{name}");
        // Not to be had back from inside either.
        let again = ["mount", "-o", "remount,rw,bind", "/mnt"];
        assert_ne!(node.cri().exec(&id, &again, 30).await?.exit_code, 0);
    }
    for (readonly, mode) in [
        (false, Propagation::PropagationPrivate),
        (true, Propagation::PropagationHostToContainer),
        (true, Propagation::PropagationBidirectional),
    ] {
        let mut config = spec::sleeper("refused");
        config.mounts = vec![cri::Mount {
            readonly,
            recursive_read_only: true,
            propagation: mode.into(),
            ..bind(&host, "/mnt")
        }];
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        assert_refused(result, Code::InvalidArgument, &["recursive_read_only"]);
    }
    node.cri().remove_pod(&pod.id).await?;
    node.run("umount", &["-R", &host.display().to_string()])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_options_hold_for_all_that_lies_below() -> Outcome {
    let node = node().await?;
    let host = mounted(&node, "host", "private")?;
    let sub = host.join("sub");
    node.inside(|| std::fs::create_dir(&sub))??;
    node.run(
        "mount",
        &["-t", "tmpfs", "tmpfs", &sub.display().to_string()],
    )?;
    for place in [&host, &sub] {
        let script = format!(
            "printf '#!/bin/sh\\necho ran\\n' > {0}/run; chmod 755 {0}/run",
            place.display()
        );
        node.run("sh", &["-c", &script])?;
    }
    let pod = Pod::run(&node, spec::pod("options")).await?;
    let mut config = spec::sleeper("c");
    config.mounts = vec![bind(&host, "/closed"), bind(&host, "/open")];
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
    let id = newer::create(&node, &pod.id, &config, |config| {
        config.mounts[0].mount_options = words(&["noexec", "nosuid", "nodev"]);
    })
    .await?;
    node.cri().start(&id).await?;
    for (path, runs) in [
        ("/open/run", true),
        ("/open/sub/run", true),
        ("/closed/run", false),
        ("/closed/sub/run", false),
    ] {
        let done = node.cri().exec(&id, &["sh", "-c", path], 30).await?;
        assert_eq!(done.exit_code == 0, runs, "{path}");
    }
    let table = node
        .cri()
        .output(&id, &["grep", " /closed", "/proc/self/mountinfo"])
        .await?;
    assert_eq!(table.matches("nosuid,nodev,noexec").count(), 2, "{table}");
    let told = newer::status(&node, &id).await?.mounts;
    assert_eq!(told[0].mount_options, ["noexec", "nodev", "nosuid"]);
    config.metadata.get_or_insert_default().attempt = 1;
    let result = newer::create(&node, &pod.id, &config, |config| {
        config.mounts[0].mount_options = words(&["exec"]);
    })
    .await;
    assert_refused(result, Code::InvalidArgument, &["mount_options", "exec"]);
    node.cri().remove_pod(&pod.id).await?;
    node.run("umount", &["-R", &host.display().to_string()])?;
    node.finish().await
}

/// CVE-2021-43816, and how the kubelet mounts its own.
#[tokio::test(flavor = "multi_thread")]
async fn files_may_lie_over_generated_ones_and_are_not_relabelled() -> Outcome {
    let node = node().await?;
    let host = node.folder("host")?;
    let places = [
        ("hosts", "/etc/hosts"),
        ("resolv.conf", "/etc/resolv.conf"),
        ("termination-log", "/dev/termination-log"),
        ("new", "/not/there/before"),
    ];
    let mut config = spec::sleeper("c");
    for (name, inside) in places {
        std::fs::write(host.join(name), format!("{name} of the client\n"))?;
        config.mounts.push(cri::Mount {
            selinux_relabel: true,
            ..bind(&host.join(name), inside)
        });
    }
    let pod = Pod::run(&node, spec::pod("files")).await?;
    let id = pod.start(&node, &config).await?;
    for (name, inside) in places {
        let said = node.cri().output(&id, &["cat", inside]).await?;
        assert_eq!(said, format!("{name} of the client\n"));
        let write = format!("echo back > {inside}");
        node.cri().output(&id, &["sh", "-c", &write]).await?;
        assert_eq!(std::fs::read_to_string(host.join(name))?, "back\n");
        let label = node.run("ls", &["-dZ", &host.join(name).display().to_string()])?;
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            assert!(label.starts_with("? "), "{label}");
        }
    }
    // A second container still has the generated ones.
    let other = pod.start(&node, &spec::sleeper("other")).await?;
    let hosts = node.cri().output(&other, &["cat", "/etc/hosts"]).await?;
    assert!(hosts.contains("localhost"), "{hosts}");
    node.finish().await
}
