//! Texts that would be more than they say: sysctls, lines, annotations, labels.

use carpel_conformance::spec;
use k8s_cri::v1 as cri;
use serde_json::json;
use tonic::Code;

use crate::site::{Outcome, Pod, assert_refused, busybox, end, logging_pod, node, pull};

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_0811_a_sysctl_sets_nothing_but_itself() -> Outcome {
    let node = node().await?;
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    for (name, value) in [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/evil"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/evil"),
        ("kernel.shm_rmid_forced", "1\0"),
        ("kernel.core_pattern", "|/evil"),
        ("kernel/core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced+kernel.core_pattern", "|/evil"),
        ("kernel.shm/../core_pattern", "|/evil"),
        ("kernel/shm/../core_pattern", "|/evil"),
        ("net.ipv4.../../kernel.core_pattern", "|/evil"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("vm.overcommit_memory", "1"),
        ("fs.file-max", "1"),
        ("", "1"),
    ] {
        let mut config = spec::pod("sysctl");
        let linux = config.linux.get_or_insert_default();
        linux.sysctls.insert(name.to_owned(), value.to_owned());
        let result = node.cri().run_pod(&config).await;
        assert_refused(result, &[Code::InvalidArgument], &["sysctls"]);
    }
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/core_pattern")?,
        pattern
    );
    // One of the pod's own is set, and the host's stays.
    let host = "/proc/sys/kernel/msgmax";
    let before = std::fs::read_to_string(host)?;
    let mut config = spec::logging_pod("own", &node.folder("logs")?);
    let linux = config.linux.get_or_insert_default();
    linux
        .sysctls
        .insert("kernel.msgmax".to_owned(), "12345".to_owned());
    let pod = Pod::run(&node, config).await?;
    let said = pod
        .output(&node, &spec::shell("c", &format!("cat {host}")))
        .await?;
    assert_eq!(said, "12345\n");
    assert_eq!(std::fs::read_to_string(host)?, before);
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_4318_and_2026_15809_no_line_is_smuggled_into_a_file() -> Outcome {
    let node = node().await?;
    let evil = "x\nevil:x:0:0::/:/bin/sh";
    let pods: [fn(&mut cri::PodSandboxConfig, &str); 4] = [
        |config, text| text.clone_into(&mut config.hostname),
        |config, text| dns(config).servers.push(text.to_owned()),
        |config, text| dns(config).searches.push(text.to_owned()),
        |config, text| dns(config).options.push(text.to_owned()),
    ];
    for change in pods {
        for text in [evil, "a b", "a:b\r", "a\0", "\u{b}x"] {
            let mut config = spec::pod("lines");
            change(&mut config, text);
            let result = node.cri().run_pod(&config).await;
            assert_refused(result, &[Code::InvalidArgument], &[]);
        }
    }
    // HOME and USER may be anything, for they come to stand in no file.
    let pod = logging_pod(&node).await?;
    let mut config = spec::shell("home", "cat /etc/passwd /etc/group");
    for key in ["HOME", "USER", "SHELL"] {
        config.envs.push(cri::KeyValue {
            key: key.to_owned(),
            value: evil.to_owned(),
        });
    }
    spec::security(&mut config).run_as_user = Some(cri::Int64Value { value: 4321 });
    let said = pod.output(&node, &config).await?;
    assert!(
        said.contains("root:") && !said.contains("evil") && !said.contains("4321"),
        "{said}"
    );
    for (key, value) in [("A\nB", "x\0"), ("A=B", "x"), ("", "x"), ("A", "x\0y")] {
        let mut config = spec::sleeper("refused");
        let (key, value) = (key.to_owned(), value.to_owned());
        config.envs = vec![cri::KeyValue { key, value }];
        assert_refused(
            pod.start(&node, &config).await,
            &[Code::InvalidArgument],
            &["env"],
        );
    }
    end(node).await
}

fn dns(config: &mut cri::PodSandboxConfig) -> &mut cri::DnsConfig {
    config.dns_config.get_or_insert_default()
}

fn annotations(list: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Runs a container with these annotations on it and on its pod; gives its cgroup's
/// limits and what its make-up says.
async fn annotated(list: &[(&str, &str)]) -> anyhow::Result<(String, String)> {
    let node = node().await?;
    let mut config = spec::logging_pod("annotated", &node.folder("logs")?);
    config.annotations = annotations(list).into_iter().collect();
    let pod = Pod::run(&node, config).await?;
    let mut config = spec::sleeper("c");
    config.annotations = annotations(list).into_iter().collect();
    let id = pod.start(&node, &config).await?;
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                  /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true";
    let limits = node.cri().output(&id, &["sh", "-c", script]).await?;
    let folder = node
        .root()
        .join(format!("state/pods/{}/containers/{id}", pod.id));
    let made = std::fs::read_to_string(folder.join("spec.json"))?;
    // They are still told as they came.
    let told = node.cri().container(&id).await?.annotations;
    anyhow::ensure!(told.len() == list.len(), "{told:?}");
    end(node).await?;
    Ok((limits, made))
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2023_6476_annotations_set_no_cgroup_keys() -> Outcome {
    let wishes = [
        (
            "io.kubernetes.cri-o.UnifiedCgroup.c",
            "memory.max=max;pids.max=7",
        ),
        ("io.kubernetes.cri-o.UnifiedCgroup", "pids.max=7"),
        ("io.kubernetes.container.unified", "pids.max=7"),
    ];
    let (plain, _) = annotated(&[]).await?;
    let (limits, made) = annotated(&wishes).await?;
    assert_eq!(limits, plain);
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let unified = &made["linux"]["resources"]["unified"];
    assert!(unified.is_null() || unified == &json!({}), "{unified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_3154_annotations_reach_no_low_level_runtime() -> Outcome {
    let (_, made) = annotated(&[
        (
            "org.systemd.property.ExecStartPre",
            "[('/evil', ['/evil'], false)]",
        ),
        ("run.oci.hooks", "/evil"),
        ("run.oci.handler", "krun"),
        ("org.criu.config", "/evil"),
    ])
    .await?;
    assert!(!made.contains("evil") && !made.contains("krun"), "{made}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_53488_labels_of_an_image_command_nothing() -> Outcome {
    let node = node().await?;
    let uri = "binary:///evil?touch=/evil-was-here";
    let names = [
        "containerd.io/restart.loguri",
        "containerd.io/restart.status",
        "io.cri-containerd.kind",
        "io.kubernetes.pod.uid",
        "io.kubernetes.cri.container-type",
    ];
    let labels: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!(uri)))
        .collect();
    let image = busybox()?.with("Labels", json!(labels));
    let image = pull(&node, "labels", image).await?;
    let pod = logging_pod(&node).await?;
    let mut config = spec::sleeper("c");
    config.image = Some(spec::image(&image));
    config.labels.insert("own".to_owned(), "label".to_owned());
    let id = pod.start(&node, &config).await?;
    let status = node.cri().container(&id).await?;
    assert_eq!(status.labels.len(), 1, "{:?}", status.labels);
    assert!(
        status.annotations.is_empty() && status.log_path.ends_with("c.log"),
        "{status:?}"
    );
    let folder = node
        .root()
        .join(format!("state/pods/{}/containers/{id}", pod.id));
    let made = std::fs::read_to_string(folder.join("spec.json"))?;
    assert!(!made.contains(uri), "{made}");
    let filter = cri::ContainerFilter {
        label_selector: [("io.kubernetes.pod.uid".to_owned(), uri.to_owned())].into(),
        ..Default::default()
    };
    assert!(node.cri().list_containers(Some(filter)).await?.is_empty());
    assert!(!std::path::Path::new("/evil-was-here").exists());
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_2995_and_2023_25173_supplementary_groups_are_those_asked_for() -> Outcome {
    let node = node().await?;
    let passwd = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
    let group = b"root:x:0:\nuser:x:1000:\nimage:x:50000:user,root\nother:x:50001:nobody\n";
    let layer = carpel_conformance::image::Layer::new()
        .file("etc/passwd", passwd, 0o644)
        .file("etc/group", group, 0o644);
    let image = pull(&node, "groups", busybox()?.layer(layer)).await?;
    let pod = logging_pod(&node).await?;
    let (merge, strict) = (
        cri::SupplementalGroupsPolicy::Merge,
        cri::SupplementalGroupsPolicy::Strict,
    );
    for (number, (user, group, more, policy, expected)) in [
        (1000, None, &[][..], merge, "1000 50000"),
        (1000, None, &[][..], strict, "1000"),
        (1000, Some(7), &[60000][..], merge, "7 50000 60000"),
        (1000, Some(7), &[60000][..], strict, "7 60000"),
        (0, None, &[60000][..], merge, "0 50000 60000"),
        (4000, None, &[60000][..], merge, "0 60000"),
        (4000, Some(4001), &[][..], strict, "4001"),
    ]
    .into_iter()
    .enumerate()
    {
        let change = |config: &mut cri::ContainerConfig| {
            let security = spec::security(config);
            security.run_as_user = Some(cri::Int64Value { value: user });
            security.run_as_group = group.map(|value| cri::Int64Value { value });
            security.supplemental_groups = more.to_vec();
            security.supplemental_groups_policy = policy.into();
        };
        let sort = |text: &str| {
            let mut ids: Vec<u32> = text.split_whitespace().flat_map(str::parse).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
        };
        let mut config = spec::container(&format!("init{number}"), &image, &["id", "-G"]);
        change(&mut config);
        assert_eq!(sort(&pod.output(&node, &config).await?), expected);
        let mut config = spec::sleeper(&format!("exec{number}"));
        config.image = Some(spec::image(&image));
        change(&mut config);
        let id = pod.start(&node, &config).await?;
        assert_eq!(
            sort(&node.cri().output(&id, &["id", "-G"]).await?),
            expected
        );
    }
    end(node).await
}
