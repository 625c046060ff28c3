//! How a container's first process begins and is asked to end.

use carpel_conformance::image::{Compression, Content, ImageBuilder, busybox_layer};
use carpel_conformance::{Node, spec};
use carpel_proto::cri::Signal;
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node, until};
use crate::newer;

/// Ends with 5, 6 or 7 on three signals.
const TRAPS: &str = "trap 'exit 5' USR1; trap 'exit 6' 37; trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

async fn ready(node: &Node, id: &str) -> Outcome {
    let log = node.cri().container(id).await?.log_path;
    until("the traps are set", || async {
        Ok(std::fs::read_to_string(&log)?.contains("ready"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_signal_is_the_containers_else_the_images_else_term() -> Outcome {
    let node = node().await?;
    let mut content = Content::default();
    ImageBuilder::new()
        .tar(busybox_layer()?, Compression::Gzip)
        .with("StopSignal", serde_json::json!("SIGRTMIN+3"))
        .push(&mut content, &["signal:1"]);
    node.registry().push(content);
    node.cri().pull("carpel.test/signal:1").await?;
    node.rebase()?;
    let pod = Pod::run(&node, spec::logging_pod("stop", &node.folder("logs")?)).await?;
    let usr1 = Signal::Sigusr1;
    let realtime = Signal::Sigrtminplus3;
    for (name, image, signal, told, code) in [
        ("term", spec::BUSYBOX, None, Signal::Sigterm, 7),
        ("image", "carpel.test/signal:1", None, realtime, 6),
        ("own", "carpel.test/signal:1", Some(usr1), usr1, 5),
        ("realtime", spec::BUSYBOX, Some(realtime), realtime, 6),
    ] {
        let config = spec::container(name, image, &["/bin/sh", "-c", TRAPS]);
        let id = newer::create(&node, &pod.id, &config, |config| {
            config.stop_signal = signal.unwrap_or_default().into();
        })
        .await?;
        node.cri().start(&id).await?;
        ready(&node, &id).await?;
        assert_eq!(
            newer::status(&node, &id).await?.stop_signal(),
            told,
            "{name}"
        );
        node.cri().stop(&id, 30).await?;
        assert_eq!(node.cri().container(&id).await?.exit_code, code, "{name}");
    }
    let result = newer::create(&node, &pod.id, &spec::sleeper("wrong"), |config| {
        config.stop_signal = 99;
    })
    .await;
    assert_refused(result, Code::InvalidArgument, &["stop_signal", "99"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_keeps_order_and_every_character() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("environment")).await?;
    let values = [
        ("FIRST", "plain"),
        ("SPACES", "  a  b\t"),
        ("LINES", "one\ntwo\r\nthree"),
        ("QUOTES", "\"'`$HOME\\"),
        ("EQUALS", "a=b=c"),
        ("UNICODE", "żółw 🐢 \u{7f}\u{1}"),
        ("EMPTY", ""),
        ("with-dash.and.dot", "x"),
        ("FIRST", "again"),
    ];
    let pair = |key: &str, value: &str| cri::KeyValue {
        key: key.into(),
        value: value.into(),
    };
    let mut config = spec::sleeper("c");
    config.envs = values.iter().map(|(k, v)| pair(k, v)).collect();
    let id = pod.start(&node, &config).await?;
    let told = node
        .cri()
        .exec(&id, &["cat", "/proc/self/environ"], 30)
        .await?;
    let told = String::from_utf8(told.stdout)?;
    let found: Vec<_> = told.split('\0').collect();
    let begin = found.iter().position(|entry| *entry == "FIRST=again");
    let rest = &found[begin.expect("the last value of a name counts")..];
    for ((name, value), entry) in values[..8].iter().zip(rest).skip(1) {
        assert_eq!(*entry, format!("{name}={value}"));
    }
    // The configuration of a container is JSON, which has no such text.
    let result = newer::create(&node, &pod.id, &spec::sleeper("bytes"), |config| {
        config.envs = vec![carpel_proto::cri::KeyValue {
            key: "BYTES".into(),
            value: vec![0xff, 0xfe],
        }];
    })
    .await;
    assert_refused(result, Code::InvalidArgument, &["envs[BYTES]", "UTF-8"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_working_directory_is_made_if_need_be() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("directory")).await?;
    let mut config = spec::sleeper("c");
    config.working_dir = "/made/for/this".to_owned();
    spec::security(&mut config).readonly_rootfs = true;
    let id = pod.start(&node, &config).await?;
    assert_eq!(node.cri().output(&id, &["pwd"]).await?, "/made/for/this\n");
    for (name, path) in [("file", "/etc/passwd"), ("below", "/etc/passwd/x")] {
        let mut config = spec::sleeper(name);
        config.working_dir = path.to_owned();
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        // A low-level runtime of others has no codes, only words.
        let status = result.expect_err("no directory");
        let codes = [Code::InvalidArgument, Code::Internal];
        assert!(codes.contains(&status.code()), "{status}");
        assert!(status.message().contains("/etc/passwd"), "{status}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_nobody_sets_are_the_daemons() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("limits")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let pid = node.daemon_pid().unwrap_or_default();
    let daemon = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    assert_eq!(
        node.cri().output(&id, &["cat", "/proc/1/limits"]).await?,
        daemon
    );
    assert_eq!(
        node.cri()
            .output(&id, &["cat", "/proc/self/limits"])
            .await?,
        daemon
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oom_score_is_as_asked_or_as_low_as_may_be() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom-score")).await?;
    let pid = node.daemon_pid().unwrap_or_default();
    let ours = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    let capable = node.run("sh", &["-c", "grep CapEff /proc/self/status"])?;
    let bits = u64::from_str_radix(capable.rsplit('\t').next().unwrap_or_default().trim(), 16)?;
    let may_lower = bits >> 24 & 1 == 1;
    for (name, wanted) in [("high", 700), ("low", -500), ("lower", -998)] {
        let mut config = spec::sleeper(name);
        spec::resources(&mut config).oom_score_adj = wanted;
        let id = pod.start(&node, &config).await?;
        let found = node
            .cri()
            .output(&id, &["cat", "/proc/self/oom_score_adj"])
            .await?;
        let expected = if wanted > 0 || may_lower {
            format!("{wanted}\n")
        } else {
            ours.clone()
        };
        assert_eq!(found, expected, "{name}");
    }
    if !may_lower {
        let said = node
            .log()?
            .matches("oom_score_adj cannot be lowered")
            .count();
        assert_eq!(said, 1, "said once, not for each container");
    }
    let mut wrong = spec::sleeper("wrong");
    spec::resources(&mut wrong).oom_score_adj = -1001;
    let result = node.cri().create(&pod.id, &wrong, &pod.config).await;
    assert_refused(result, Code::InvalidArgument, &["oom_score_adj", "-1001"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_given_with_the_rights_that_were_asked_for() -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let node = node().await?;
    let host = node.folder("devices")?;
    // FUSE: not among those that a runtime gives to every container.
    for (name, minor) in [("fuse", 229), ("again", 229)] {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&host.join(name), SFlag::S_IFCHR, mode, makedev(10, minor))?;
    }
    let pod = Pod::run(&node, spec::pod("devices")).await?;
    let config = |name: &str, host_path: &std::path::Path, inside: &str, permissions: &str| {
        let mut config = spec::sleeper(name);
        config.devices = vec![cri::Device {
            container_path: inside.to_owned(),
            host_path: host_path.display().to_string(),
            permissions: permissions.to_owned(),
        }];
        config
    };
    for (permissions, reads, writes) in
        [("r", true, false), ("w", false, true), ("rwm", true, true)]
    {
        let config = config(permissions, &host.join("fuse"), "/dev/x", permissions);
        let id = pod.start(&node, &config).await?;
        for (script, works) in [(": < /dev/x", reads), (": > /dev/x", writes)] {
            let done = node.cri().exec(&id, &["sh", "-c", script], 30).await?;
            assert_eq!(
                done.exit_code == 0,
                works,
                "{permissions}: {script}: {done:?}"
            );
        }
    }
    let folder = pod
        .start(&node, &config("folder", &host, "/dev/all", ""))
        .await?;
    let script = "ls /dev/all; : < /dev/all/again";
    let said = node.cri().output(&folder, &["sh", "-c", script]).await?;
    assert_eq!(said, "again\nfuse\n");
    // One that was not asked for can be made, and not opened.
    let without = pod.start(&node, &spec::sleeper("without")).await?;
    let script = "mknod /tmp/fuse c 10 229 && : < /tmp/fuse";
    let denied = node.cri().exec(&without, &["sh", "-c", script], 30).await?;
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("Operation not permitted"), "{said}");
    for (name, path, permissions, part) in [
        ("missing", "/dev/no-such", "r", "/dev/no-such"),
        ("file", "/etc/passwd", "r", "/etc/passwd"),
        ("rights", "/dev/null", "rx", "permissions"),
    ] {
        let config = config(name, std::path::Path::new(path), "/dev/x", permissions);
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        assert_refused(result, Code::InvalidArgument, &[part]);
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_the_image_come_or_stay_away_as_the_policy_says() -> Outcome {
    let image = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest";
    let node = Node::with(&[image]).await?;
    let pod = Pod::run(&node, spec::pod("groups")).await?;
    let merge = cri::SupplementalGroupsPolicy::Merge;
    let strict = cri::SupplementalGroupsPolicy::Strict;
    let by_number = |security: &mut cri::LinuxContainerSecurityContext| {
        security.run_as_user = Some(cri::Int64Value { value: 1000 });
    };
    let by_name = |security: &mut cri::LinuxContainerSecurityContext| {
        security.run_as_username = "default-user".to_owned();
        security.run_as_group = Some(cri::Int64Value { value: 7 });
    };
    type Change = fn(&mut cri::LinuxContainerSecurityContext);
    let cases: [(&str, Change, _, &str); 5] = [
        ("merge", by_number, merge, "1000 1234 50000"),
        ("strict", by_number, strict, "1000 1234"),
        ("image", |_| {}, merge, "1000 1234 50000"),
        ("name-merge", by_name, merge, "7 1234 50000"),
        ("name-strict", by_name, strict, "7 1234"),
    ];
    for (name, change, policy, groups) in cases {
        let mut config = spec::container(name, image, &["sleep", "100000"]);
        let security = spec::security(&mut config);
        security.supplemental_groups = vec![1234];
        security.supplemental_groups_policy = policy.into();
        change(security);
        let id = pod.start(&node, &config).await?;
        assert_eq!(
            node.cri().output(&id, &["id", "-G"]).await?.trim(),
            groups,
            "{name}"
        );
        let user = node.cri().container(&id).await?.user.unwrap_or_default();
        let told: Vec<_> = user.linux.unwrap_or_default().supplemental_groups;
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.join(" "), groups, "{name}");
    }
    let mut unknown = spec::container("unknown", image, &["sleep", "1"]);
    spec::security(&mut unknown).run_as_username = "nobody-knows".to_owned();
    let result = node.cri().create(&pod.id, &unknown, &pod.config).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        &["run_as_username", "nobody-knows"],
    );
    node.finish().await
}
