//! From a container to the host through what starts its processes.

use carpel_conformance::image::digest_of;
use carpel_conformance::{Node, paths, spec};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::site::{
    Outcome, Pod, Target, armed, assert_refused, bind, busybox, end, grant, logging_pod, node, pull,
};

fn binaries() -> anyhow::Result<Vec<String>> {
    ["carpeld", "carpel-holder"]
        .iter()
        .map(|name| Ok(digest_of(&std::fs::read(paths::binary(name)?)?)))
        .collect()
}

async fn armed_image(node: &Node, name: &str) -> anyhow::Result<String> {
    let layer = armed()?.file("evil", b"#!/proc/self/exe\n", 0o755);
    Ok(pull(node, name, busybox()?.layer(layer)).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2019_5736_entrypoint_proc_self_exe_cannot_reach_our_binary() -> Outcome {
    let node = node().await?;
    let before = binaries()?;
    let image = armed_image(&node, "self-exe").await?;
    let pod = logging_pod(&node).await?;
    let first = spec::container("first", &image, &["/evil", "x"]);
    if let Ok(id) = pod.start(&node, &first).await {
        assert_ne!(node.cri().wait_exit(&id).await?.exit_code, 0);
    }
    let grabber = spec::container("grabber", &image, &["/attack", "grab", "4"]);
    let id = pod.start(&node, &grabber).await?;
    let mut execs = 0;
    while node.cri().container(&id).await?.state() == cri::ContainerState::ContainerRunning {
        // Whether it fails before or after its start, it must not do so for long.
        node.cri().exec(&id, &["/evil"], 10).await.ok();
        execs += 1;
    }
    let log = std::fs::read_to_string(node.folder("logs")?.join("grabber.log"))?;
    assert!(execs > 3 && log.contains("changed=0"), "{execs}: {log}");
    assert_eq!(binaries()?, before);
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2019_5736_who_may_trace_cannot_use_the_pods_init() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("shared-processes")).await?;
    let mut config = spec::sleeper("tracer");
    grant(
        &mut config,
        &["SYS_PTRACE", "SYS_ADMIN", "FOWNER", "DAC_OVERRIDE"],
    );
    let id = pod.start(&node, &config).await?;
    let name = node.cri().output(&id, &["cat", "/proc/1/comm"]).await?;
    assert_eq!(name, "carpel-init\n");

    // Its program is everybody's: closed here, no pod would start any more.
    for script in [
        "chmod 0 /proc/1/exe",
        "chown 1 /proc/1/exe",
        "echo x >> /proc/1/exe",
    ] {
        let reply = node.cri().exec(&id, &["sh", "-c", script], 10).await?;
        let said = String::from_utf8_lossy(&reply.stderr).into_owned();
        assert!(reply.exit_code != 0, "{script}");
        assert!(
            said.contains("Read-only file system") || said.contains("busy"),
            "{script}: {said}"
        );
    }
    // Its root has nothing, and its process may do nothing.
    let root = node
        .cri()
        .output(&id, &["ls", "-A", "/proc/1/root/"])
        .await?;
    assert_eq!(root, "");
    let fds = node.cri().output(&id, &["ls", "-l", "/proc/1/fd/"]).await?;
    assert!(!fds.contains("socket") && !fds.contains("cgroup"), "{fds}");
    let script = "grep -E '^(Uid|Groups|CapPrm|CapEff|CapBnd|NoNewPrivs):' /proc/1/status";
    let status = node.cri().output(&id, &["sh", "-c", script]).await?;
    let fields: Vec<Vec<&str>> = status
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    let none = "0000000000000000";
    assert_eq!(fields[0], ["65534"; 4], "{status}");
    assert!(fields[1].is_empty(), "{status}");
    assert_eq!(fields[2..5], [[none], [none], [none]], "{status}");
    assert_eq!(fields[5], ["1"], "{status}");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_21626_only_stdio_is_open_in_init_and_exec() -> Outcome {
    let node = node().await?;
    let image = armed_image(&node, "descriptors").await?;
    let pod = logging_pod(&node).await?;
    let first = spec::container("first", &image, &["/attack", "fds"]);
    assert_eq!(pod.output(&node, &first).await?, "0 1 2 \n");
    let mut beside = spec::sleeper("beside");
    beside.image = Some(spec::image(&image));
    let id = pod.start(&node, &beside).await?;
    let said = node.cri().output(&id, &["/attack", "fds"]).await?;
    assert_eq!(said, "0 1 2 \n");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_21626_a_working_directory_under_proc_self_fd_is_refused() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("directory")).await?;
    let mut places: Vec<String> = (3..24).map(|fd| format!("/proc/self/fd/{fd}")).collect();
    places.extend((3..12).map(|fd| format!("/proc/thread-self/fd/{fd}/../../..")));
    places.extend(["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd"].map(str::to_owned));
    let codes = [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::Internal,
    ];
    for (number, place) in places.iter().enumerate() {
        let mut config = spec::shell(&format!("c{number}"), "pwd; ls ../../../..");
        config.working_dir.clone_from(place);
        assert_refused(pod.start(&node, &config).await, &codes, &[]);
    }
    // An image asks for it as well.
    let evil = busybox()?.with("WorkingDir", serde_json::json!("/proc/self/fd/8"));
    let image = pull(&node, "directory", evil).await?;
    let config = spec::container("image", &image, &["sh", "-c", "ls ../../.."]);
    assert_refused(pod.start(&node, &config).await, &codes, &[]);
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_24769_inheritable_capabilities_are_empty() -> Outcome {
    let node = node().await?;
    let mut config = spec::logging_pod("capabilities", &node.folder("logs")?);
    spec::pod_security(&mut config).privileged = true;
    let pod = Pod::run(&node, config).await?;
    let script = "grep -E 'Cap(Inh|Amb)' /proc/self/status | cut -f2";
    let none = "0000000000000000\n0000000000000000\n";
    for (name, names, privileged) in [
        ("plain", &[][..], false),
        ("more", &["NET_ADMIN"][..], false),
        ("all", &["ALL"][..], false),
        ("privileged", &[][..], true),
    ] {
        let mut first = spec::shell(&format!("{name}-init"), script);
        let mut beside = spec::sleeper(&format!("{name}-exec"));
        for config in [&mut first, &mut beside] {
            grant(config, names);
            spec::security(config).privileged = privileged;
        }
        assert_eq!(pod.output(&node, &first).await?, none, "{name}");
        let id = pod.start(&node, &beside).await?;
        let said = node.cri().output(&id, &["sh", "-c", script]).await?;
        assert_eq!(said, none, "{name}");
        // Not even for a user that is not root.
        spec::security(&mut first).run_as_user = Some(cri::Int64Value { value: 1000 });
        let again = format!("{name}-user");
        first
            .metadata
            .get_or_insert_default()
            .name
            .clone_from(&again);
        first.log_path = format!("{again}.log");
        assert_eq!(pod.output(&node, &first).await?, none, "{name}");
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_30465_swapping_a_volumes_links_mounts_nothing_outside() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let image = armed_image(&node, "swapper").await?;
    let pod = Pod::run(&node, spec::pod("swap")).await?;
    let shared = node.folder("shared")?;
    std::fs::create_dir(shared.join("a"))?;
    std::os::unix::fs::symlink(&target.ways()[0], shared.join("b"))?;
    let mut swapper = spec::container("swapper", &image, &["/attack", "swap", "/v/a", "/v/b"]);
    swapper.mounts = vec![bind(&shared, "/v")];
    let swapping = pod.start(&node, &swapper).await?;

    let data = node.folder("data")?;
    let mut made = 0;
    for number in 0..24 {
        let mut config = spec::sleeper(&format!("c{number}"));
        config.mounts = vec![bind(&shared, "/data"), bind(&data, "/data/a/sub")];
        if let Ok(id) = pod.start(&node, &config).await {
            let table = node.cri().output(&id, &["cat", "/proc/mounts"]).await?;
            assert!(
                table.lines().count() < 60 && !table.contains("daemon.log"),
                "{table}"
            );
            node.cri().remove(&id).await?;
            made += 1;
        }
        target.unharmed()?;
    }
    let status = node.cri().container(&swapping).await?;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert!(made > 0, "not one container came to be");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_43784_very_long_texts_are_carried_whole_or_refused() -> Outcome {
    let node = node().await?;
    let pod = logging_pod(&node).await?;
    let long = "x".repeat(100_000);
    let mut carried = spec::shell("carried", "echo ${#LONG} ${#1}");
    carried.envs = vec![cri::KeyValue {
        key: "LONG".to_owned(),
        value: long.clone(),
    }];
    carried.args = vec!["name".to_owned(), long.clone()];
    assert_eq!(pod.output(&node, &carried).await?, "100000 100000\n");

    let change = |name: &str, path: String| {
        let mut config = spec::sleeper(&format!("long-{name}"));
        match name {
            "working-dir" => config.working_dir = path,
            "log" => config.log_path = path.trim_start_matches('/').to_owned(),
            "command" => config.command = vec![path],
            "mount" => config.mounts = vec![bind(std::path::Path::new("/tmp"), &path)],
            _ => spec::security(&mut config).masked_paths = vec![path],
        }
        config
    };
    for name in ["working-dir", "log", "command", "mount", "masked"] {
        for path in [format!("/{long}"), format!("/{}", "d/".repeat(5000))] {
            let result = pod.start(&node, &change(name, path)).await;
            if name != "masked" {
                let status = result.expect_err(name);
                assert_ne!(status.code(), Code::Unavailable, "{name}: {status}");
            }
        }
    }
    let mut config = spec::pod(&"n".repeat(70_000));
    config.metadata.get_or_insert_default().uid = "u".repeat(70_000);
    node.cri().run_pod(&config).await.ok();
    end(node).await
}
