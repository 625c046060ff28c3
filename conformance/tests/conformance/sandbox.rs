//! Pods: their life, their names, their namespaces.

use std::collections::HashSet;
use std::time::Duration;

use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_from_ready_over_notready_to_gone() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("life")).await?;
    let status = node.cri().pod(&pod.id).await?;
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert!(status.created_at > 0);

    node.cri().stop_pod(&pod.id).await?;
    node.cri().stop_pod(&pod.id).await?;
    let state = node.cri().pod(&pod.id).await?.state();
    assert_eq!(state, cri::PodSandboxState::SandboxNotready);

    node.cri().remove_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    assert!(node.cri().list_pods(None).await?.is_empty());
    assert_eq!(
        node.cri().pod(&pod.id).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_what_it_was_given() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("attributes");
    config.labels.insert("app".into(), "web".into());
    config
        .annotations
        .insert("note".into(), "kept as it is, ü".into());
    let pod = Pod::run(&node, config).await?;

    let status = node.cri().pod(&pod.id).await?;
    assert_eq!(status.metadata, pod.config.metadata);
    assert_eq!(status.labels, pod.config.labels);
    assert_eq!(status.annotations, pod.config.annotations);
    let listed = &node.cri().list_pods(None).await?[0];
    assert_eq!(
        (&listed.metadata, &listed.labels),
        (&pod.config.metadata, &pod.config.labels)
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_what_every_part_of_the_filter_matches() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("labelled");
    config.labels.insert("app".into(), "web".into());
    let labelled = Pod::run(&node, config).await?;
    let other = Pod::run(&node, spec::pod("other")).await?;
    node.cri().stop_pod(&other.id).await?;

    let find = async |filter: cri::PodSandboxFilter| -> anyhow::Result<HashSet<String>> {
        let pods = node.cri().list_pods(Some(filter)).await?;
        Ok(pods.into_iter().map(|pod| pod.id).collect())
    };
    let label = |value: &str| cri::PodSandboxFilter {
        label_selector: [("app".to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    let state = |state: cri::PodSandboxState| cri::PodSandboxFilter {
        state: Some(cri::PodSandboxStateValue {
            state: state.into(),
        }),
        ..Default::default()
    };
    let id = |id: &str| cri::PodSandboxFilter {
        id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(find(label("web")).await?, [labelled.id.clone()].into());
    assert_eq!(find(label("db")).await?, HashSet::new());
    let not_ready = cri::PodSandboxState::SandboxNotready;
    assert_eq!(find(state(not_ready)).await?, [other.id.clone()].into());
    assert_eq!(find(id(&other.id)).await?, [other.id.clone()].into());
    assert_eq!(find(id(&other.id[..13])).await?, [other.id.clone()].into());
    assert_eq!(find(id("there-is-none")).await?, HashSet::new());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_removing_what_is_not_there_is_no_error() -> Outcome {
    let node = node().await?;
    let cri = node.cri();
    cri.stop_pod("there-is-none").await?;
    cri.remove_pod("there-is-none").await?;
    cri.stop("there-is-none", 0).await?;
    cri.remove("there-is-none").await?;
    cri.remove_image(&"0".repeat(64)).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_twice_for_one_pod_gives_one_pod() -> Outcome {
    let node = node().await?;
    let config = spec::pod("twice");
    let (first, second) = tokio::join!(node.cri().run_pod(&config), node.cri().run_pod(&config));
    assert_eq!(first?, second?);
    assert_eq!(node.cri().list_pods(None).await?.len(), 1);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_nothing_half_made() -> Outcome {
    let node = node().await?;
    for number in 0..10_u64 {
        let config = spec::pod("hang-up");
        let wait = Duration::from_millis(number * 2);
        tokio::time::timeout(wait, node.cri().run_pod(&config))
            .await
            .ok();
        let again = node.cri().run_pod(&config).await?;
        let status = node.cri().pod(&again).await?;
        assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
        assert_eq!(node.cri().list_pods(None).await?.len(), 1);
        node.cri().stop_pod(&again).await?;
        node.cri().remove_pod(&again).await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_the_hostname_and_resolver_it_asked_for() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("names");
    config.hostname = "some-host".to_owned();
    config.dns_config = Some(cri::DnsConfig {
        servers: vec!["10.10.10.10".to_owned()],
        searches: vec!["example.org".to_owned(), "svc.local".to_owned()],
        options: vec!["ndots:8".to_owned()],
    });
    let pod = Pod::run(&node, config).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    assert_eq!(node.cri().output(&id, &["hostname"]).await?, "some-host\n");
    let resolver = node.cri().output(&id, &["cat", "/etc/resolv.conf"]).await?;
    let expected = [
        "nameserver 10.10.10.10",
        "search example.org svc.local",
        "options ndots:8",
    ];
    for line in expected {
        assert!(
            resolver.lines().any(|found| found == line),
            "{line}: {resolver}"
        );
    }
    let hosts = node.cri().output(&id, &["cat", "/etc/hosts"]).await?;
    let ip = node.cri().pod_ip(&pod.id).await?;
    assert!(
        hosts.contains("127.0.0.1") && hosts.contains(&ip),
        "{hosts}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_of_a_pod_are_its_own() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("sysctls");
    let linux = config.linux.get_or_insert_default();
    linux
        .sysctls
        .insert("kernel.shm_rmid_forced".into(), "1".into());
    linux
        .sysctls
        .insert("net.ipv4.ip_local_port_range".into(), "2000 3000".into());
    let pod = Pod::run(&node, config).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let read = async |path: &str| node.cri().output(&id, &["cat", path]).await;
    assert_eq!(read("/proc/sys/kernel/shm_rmid_forced").await?, "1\n");
    assert_eq!(
        read("/proc/sys/net/ipv4/ip_local_port_range").await?,
        "2000\t3000\n"
    );
    let host = node.run("cat", &["/proc/sys/net/ipv4/ip_local_port_range"])?;
    assert_ne!(host, "2000\t3000\n");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_what_the_pod_shares() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("shared")).await?;
    let first = pod.start(&node, &spec::sleeper("first")).await?;
    let second = pod.start(&node, &spec::sleeper("second")).await?;
    let links = async |id: &str| -> anyhow::Result<Vec<String>> {
        let mut links = Vec::new();
        for kind in ["net", "ipc", "uts", "pid", "mnt"] {
            let path = format!("/proc/self/ns/{kind}");
            links.push(node.cri().output(id, &["readlink", &path]).await?);
        }
        Ok(links)
    };
    let (first_links, second_links) = (links(&first).await?, links(&second).await?);
    assert_eq!(
        first_links[..4],
        second_links[..4],
        "net, ipc, uts and pid are the pod's"
    );
    assert_ne!(
        first_links[4], second_links[4],
        "mounts are a container's own"
    );

    let host: Vec<_> = ["net", "ipc", "uts", "pid", "mnt"]
        .iter()
        .map(|kind| node.run("readlink", &[&format!("/proc/self/ns/{kind}")]))
        .collect::<Result<_, _>>()?;
    assert!(
        first_links
            .iter()
            .zip(&host)
            .all(|(inside, outside)| inside != outside)
    );

    node.cri()
        .output(&first, &["sh", "-c", "echo shared > /dev/shm/note"])
        .await?;
    assert_eq!(
        node.cri()
            .output(&second, &["cat", "/dev/shm/note"])
            .await?,
        "shared\n"
    );
    let processes = node.cri().output(&second, &["ps"]).await?;
    assert!(
        processes.matches("sleep 100000").count() >= 2,
        "{processes}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_its_own_pid_namespace_is_first_in_it() -> Outcome {
    let node = node().await?;
    let mode = cri::NamespaceMode::Pod;
    let option = spec::namespaces(mode, cri::NamespaceMode::Container, mode);
    let mut config = spec::pod("own-pid");
    spec::pod_security(&mut config).namespace_options = Some(option.clone());
    let pod = Pod::run(&node, config).await?;
    let mut container = spec::container("c", spec::BUSYBOX, &["sleep", "4321"]);
    spec::security(&mut container).namespace_options = Some(option);
    let id = pod.start(&node, &container).await?;
    let first = node.cri().output(&id, &["cat", "/proc/1/cmdline"]).await?;
    assert_eq!(first, "sleep\u{0}4321\u{0}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_the_nodes_namespaces_sees_the_node() -> Outcome {
    let node = node().await?;
    let mode = cri::NamespaceMode::Node;
    let option = spec::namespaces(mode, mode, mode);
    let mut config = spec::pod("node");
    spec::pod_security(&mut config).namespace_options = Some(option.clone());
    let pod = Pod::run(&node, config).await?;
    let mut container = spec::sleeper("c");
    spec::security(&mut container).namespace_options = Some(option);
    let id = pod.start(&node, &container).await?;
    for kind in ["net", "ipc", "pid"] {
        let path = format!("/proc/self/ns/{kind}");
        let inside = node.cri().output(&id, &["readlink", &path]).await?;
        assert_eq!(inside, node.run("readlink", &[&path])?, "{kind}");
    }
    assert_eq!(node.cri().pod_ip(&pod.id).await?, "");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_says_what_it_is_and_that_it_is_ready() -> Outcome {
    let node = node().await?;
    let version = node.cri().version().await?;
    assert_eq!(version.version, "0.1.0");
    assert_eq!(version.runtime_name, "carpel");
    assert_eq!(version.runtime_api_version, "v1");
    assert_eq!(version.runtime_version.split('.').count(), 3);
    let status = node.cri().status(true).await?;
    let conditions = status.status.unwrap_or_default().conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        assert!(
            conditions
                .iter()
                .any(|condition| condition.r#type == kind && condition.status)
        );
    }
    for value in status.info.values().filter(|value| value.starts_with('{')) {
        serde_json::from_str::<serde_json::Value>(value)?;
    }
    let request = cri::RuntimeConfigRequest {};
    let config = node
        .cri()
        .runtime()
        .runtime_config(request)
        .await?
        .into_inner();
    assert_eq!(
        config.linux.unwrap_or_default().cgroup_driver(),
        cri::CgroupDriver::Cgroupfs
    );
    node.finish().await
}
