//! The daemon's own doors: sockets, folders, what it tells and writes down.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use carpel_conformance::image::Layer;
use carpel_conformance::registry::Auth;
use carpel_conformance::spec::BUSYBOX;
use carpel_conformance::{Node, Settings, spec, text_of};
use k8s_cri::v1 as cri;

use crate::site::{Outcome, Pod, busybox, end, node, pull};

const NOBODY: u32 = 65534;

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        next += 1;
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let more: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            found.extend(more);
        }
    }
    found
}

/// Runs a shell script on the node as a user without rights.
fn as_nobody(node: &Node, script: &str, argument: &str) -> anyhow::Result<String> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, "sh", argument])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    text_of(&node.command(&mut command)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15257_sockets_are_roots_alone_and_none_is_abstract() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("host-network");
    let option = spec::namespaces(
        cri::NamespaceMode::Node,
        cri::NamespaceMode::Pod,
        cri::NamespaceMode::Pod,
    );
    spec::pod_security(&mut config).namespace_options = Some(option.clone());
    let pod = Pod::run(&node, config).await?;
    let mut config = spec::sleeper("c");
    spec::security(&mut config).namespace_options = Some(option);
    let id = pod.start(&node, &config).await?;
    let seen = node.cri().output(&id, &["cat", "/proc/net/unix"]).await?;
    let names: Vec<&str> = seen
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7))
        .collect();
    assert!(
        names.iter().any(|name| name.ends_with("cri.sock")),
        "{seen}"
    );
    assert!(!names.iter().any(|name| name.starts_with('@')), "{seen}");

    let mut sockets = vec![node.socket().to_owned(), node.admin_socket().to_owned()];
    sockets.extend(below(node.run_root()).into_iter().filter(|path| {
        path.metadata()
            .is_ok_and(|meta| meta.file_type().is_socket())
    }));
    assert!(sockets.len() >= 3, "one of a holder as well: {sockets:?}");
    for socket in &sockets {
        let mode = socket.metadata()?.permissions().mode();
        let folder = socket
            .parent()
            .context("a folder")?
            .metadata()?
            .permissions()
            .mode();
        let closed = mode & 0o077 == 0 || folder & 0o077 == 0;
        assert!(closed, "{}: {mode:o} in {folder:o}", socket.display());
        let text = socket.display().to_string();
        let script =
            "busybox nc -U \"$1\" </dev/null 2>/dev/null; test -w \"$1\" && echo open; true";
        assert_eq!(as_nobody(&node, script, &text)?, "", "{text}");
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_41103_and_2024_25621_state_is_closed_to_other_users() -> Outcome {
    let node = node().await?;
    let program = std::fs::read("/bin/busybox")?;
    let layer = Layer::new()
        .file("gain", &program, 0o6755)
        .file("open", b"x", 0o666);
    let image = pull(&node, "setuid", busybox()?.layer(layer)).await?;
    let pod = Pod::run(&node, spec::pod("state")).await?;
    let mut config = spec::container("c", &image, &["sh", "-c", "cp -a /gain /mine; sleep 1000"]);
    config.envs = vec![cri::KeyValue {
        key: "TOKEN".to_owned(),
        value: "of-the-container".to_owned(),
    }];
    let id = pod.start(&node, &config).await?;
    node.cri().output(&id, &["test", "-u", "/gain"]).await?;

    let mut paths = below(node.root());
    paths.extend(below(node.run_root()));
    let gains = paths
        .iter()
        .filter(|path| path.ends_with("gain") || path.ends_with("mine"));
    assert!(gains.count() >= 2, "a layer's and a container's");
    let list = node.folder("list")?.join("paths");
    let lines: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let script = "while read -r path; do \
                  if [ -f \"$path\" ] || [ -w \"$path\" ]; then echo \"$path\"; fi; done < \"$1\"";
    let reached = as_nobody(&node, script, &list.display().to_string())?;
    let harmless = |line: &str| line.ends_with("/carpeld.lock");
    let reached: Vec<&str> = reached.lines().filter(|line| !harmless(line)).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stand_in_no_log_even_at_trace() -> Outcome {
    let settings = Settings::default().images(&[BUSYBOX]).log_level("trace");
    let node = Node::start(settings).await?;
    let image = format!(
        "{}/k8s-staging-cri-tools/test-image-1:latest",
        node.registry().host()
    );
    let (user, password) = ("someone", "hunter2-hunter2");
    let basic = "c29tZW9uZTpodW50ZXIyLWh1bnRlcjI=";
    let base = cri::AuthConfig::default;
    let logins = [
        cri::AuthConfig {
            username: user.to_owned(),
            password: password.to_owned(),
            ..base()
        },
        cri::AuthConfig {
            auth: basic.to_owned(),
            ..base()
        },
        cri::AuthConfig {
            username: user.to_owned(),
            password: "wrong-hunter3".to_owned(),
            ..base()
        },
        cri::AuthConfig {
            identity_token: "identity-hunter4".to_owned(),
            ..base()
        },
        cri::AuthConfig {
            registry_token: "registry-hunter5".to_owned(),
            ..base()
        },
    ];
    for auth in [Auth::basic(user, password), Auth::bearer(user, password)] {
        node.registry().set_auth(auth);
        for login in logins.clone() {
            if let Ok(id) = node.cri().pull_as(&image, Some(login)).await {
                node.cri().remove_image(&id).await?;
            }
        }
    }
    node.registry().set_auth(Auth::Open);
    let pod = Pod::run(&node, spec::pod("secret")).await?;
    let mut config = spec::sleeper("c");
    config.envs = vec![cri::KeyValue {
        key: "SECRET".to_owned(),
        value: "environment-hunter6".to_owned(),
    }];
    let id = pod.start(&node, &config).await?;
    node.cri()
        .output(&id, &["sh", "-c", "true argument-hunter7"])
        .await?;

    let log = node.log()?;
    assert!(log.contains("TRACE"), "the log is one of traces");
    for secret in ["hunter", basic, "a-token-that-the-test-made-up"] {
        let told = log.lines().find(|line| line.contains(secret));
        assert_eq!(told, None, "{secret}");
    }
    // Nor does anything of a login lie on the disk.
    for path in below(node.root()).into_iter().chain(below(node.run_root())) {
        if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            let content = std::fs::read(&path)?;
            for secret in [
                password,
                basic,
                "hunter4",
                "hunter5",
                "a-token-that-the-test",
            ] {
                let found = content
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} in {}", path.display());
            }
        }
    }
    end(node).await
}
