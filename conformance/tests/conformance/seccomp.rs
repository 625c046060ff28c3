//! Which system calls the profiles let through.

use std::collections::BTreeMap;

use carpel_conformance::{Node, Settings, spec};
use k8s_cri::v1 as cri;
use k8s_cri::v1::security_profile::ProfileType;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
/// What the defaults of containerd and Docker deny to a container with the usual
/// capabilities, each with what a program is told.
const DENIED: [(&str, i32); 19] = [
    ("keyctl", EPERM),
    ("add_key", EPERM),
    ("request_key", EPERM),
    ("io_uring_setup", EPERM),
    ("socket-alg", EPERM),
    ("socket-vsock", EPERM),
    ("clone-user", EPERM),
    ("unshare-user", EPERM),
    ("mount", EPERM),
    ("umount", EPERM),
    ("open_tree", EPERM),
    ("setns", EPERM),
    ("bpf", EPERM),
    ("perf_event_open", EPERM),
    ("userfaultfd", EPERM),
    ("personality", EPERM),
    ("clock_settime", EPERM),
    ("get_mempolicy", EPERM),
    // So that C libraries fall back to clone, whose flags can be looked at.
    ("clone3", ENOSYS),
];
const ALLOWED: [&str; 4] = ["ptrace", "personality-linux", "socket-inet", "socket-unix"];

async fn node() -> anyhow::Result<Node> {
    Node::start(Settings::default().images(&[spec::TOOLS])).await
}

fn profile(kind: ProfileType, reference: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: reference.to_owned(),
    })
}

fn config(name: &str, profile: Option<cri::SecurityProfile>) -> cri::ContainerConfig {
    let mut config = cri::ContainerConfig {
        image: Some(spec::image(spec::TOOLS)),
        ..spec::sleeper(name)
    };
    spec::security(&mut config).seccomp = profile;
    config
}

/// What each call was answered, by name.
async fn try_calls(node: &Node, id: &str) -> anyhow::Result<BTreeMap<String, i32>> {
    let said = node.cri().output(id, &["/syscalls"]).await?;
    let answers = said.lines().map(|line| {
        let (name, error) = line.split_once(' ').unwrap_or((line, "-1"));
        Ok((name.to_owned(), error.parse()?))
    });
    answers.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_denies_what_other_runtimes_defaults_deny() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("seccomp")).await?;
    let start = async |name, kind| {
        let id = pod.start(&node, &config(name, profile(kind, ""))).await?;
        try_calls(&node, &id).await
    };
    let free = start("free", ProfileType::Unconfined).await?;
    let confined = start("confined", ProfileType::RuntimeDefault).await?;
    for (name, error) in DENIED {
        assert_eq!(confined.get(name), Some(&error), "{name}");
        // Or the kernel denies it by itself, and this says nothing of the profile.
        if free.get(name) == Some(&error) {
            eprintln!("skipped: this kernel denies {name} without a profile");
        }
    }
    for name in ALLOWED {
        assert_eq!(confined.get(name), Some(&0), "{name}");
    }
    let by_profile = |(name, error): &&(&str, i32)| free.get(*name) != Some(error);
    let told_apart = DENIED.iter().filter(by_profile).count();
    assert!(
        told_apart > 12,
        "only {told_apart} calls say anything: {free:?}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_opens_the_calls_that_need_it() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("capable")).await?;
    let mut admin = config("admin", profile(ProfileType::RuntimeDefault, ""));
    spec::security(&mut admin).capabilities = Some(cri::Capability {
        add_capabilities: vec!["SYS_ADMIN".to_owned()],
        ..Default::default()
    });
    let id = pod.start(&node, &admin).await?;
    let answers = try_calls(&node, &id).await?;
    for name in ["mount", "umount", "unshare-user", "setns", "open_tree"] {
        assert_ne!(answers.get(name), Some(&EPERM), "{name}");
    }
    for name in ["keyctl", "io_uring_setup", "socket-alg", "clock_settime"] {
        assert_eq!(answers.get(name), Some(&EPERM), "{name}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_the_node_is_the_one_that_counts() -> Outcome {
    let node = node().await?;
    let file = node.folder("profiles")?.join("no-chmod.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
    std::fs::write(&file, text)?;
    let pod = Pod::run(&node, spec::pod("localhost")).await?;
    let path = file.display().to_string();
    for (name, reference) in [
        ("plain", path.clone()),
        ("old", format!("localhost/{path}")),
    ] {
        let container = config(name, profile(ProfileType::Localhost, &reference));
        let id = pod.start(&node, &container).await?;
        let denied = node.cri().exec(&id, &["chmod", "700", "/tmp"], 30).await?;
        let said = String::from_utf8_lossy(&denied.stderr).into_owned();
        assert!(said.contains("not implemented"), "{said}");
        assert_eq!(try_calls(&node, &id).await?.get("keyctl"), Some(&0));
    }
    let mut free = config("privileged", profile(ProfileType::Localhost, &path));
    spec::security(&mut free).privileged = true;
    // Privileged containers need a privileged pod in Kubernetes, not here.
    let id = pod.start(&node, &free).await?;
    node.cri().output(&id, &["chmod", "700", "/tmp"]).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_not_there_or_is_none_is_refused_by_name() -> Outcome {
    let node = node().await?;
    let folder = node.folder("profiles")?;
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        std::fs::write(folder.join(name), text)?;
        Ok(folder.join(name).display().to_string())
    };
    let cases = [
        (
            "missing",
            folder.join("missing").display().to_string(),
            "No such file",
        ),
        (
            "json",
            write("json", "{\"defaultAction\":")?,
            "is not a profile",
        ),
        ("empty", write("empty", "")?, "is not a profile"),
        (
            "action",
            write("action", r#"{"defaultAction": "SCMP_ACT_NO"}"#)?,
            "SCMP_ACT_NO",
        ),
        ("folder", folder.display().to_string(), "is not a file"),
        (
            "relative",
            "profiles/x.json".to_owned(),
            "is not an absolute path",
        ),
        ("nothing", String::new(), "is not an absolute path"),
    ];
    let pod = Pod::run(&node, spec::pod("wrong")).await?;
    for (name, path, why) in cases {
        let container = config(name, profile(ProfileType::Localhost, &path));
        let result = node.cri().create(&pod.id, &container, &pod.config).await;
        assert_refused(result, Code::InvalidArgument, &[&path, why]);
    }
    assert!(node.cri().list_containers(None).await?.is_empty());
    node.finish().await
}
