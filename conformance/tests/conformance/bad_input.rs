//! Requests that make no sense: the right code, field and value by name, nothing changed.

use carpel_conformance::spec;
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_are_told() -> Outcome {
    let node = node().await?;
    let cri = node.cri();
    let id = "nobody-knows-me";
    assert_refused(cri.pod(id).await, Code::NotFound, &[id]);
    assert_refused(cri.container(id).await, Code::NotFound, &[id]);
    assert_refused(cri.start(id).await, Code::NotFound, &[id]);
    assert_refused(cri.exec(id, &["true"], 1).await, Code::NotFound, &[id]);
    assert_refused(cri.stats(id).await, Code::NotFound, &[id]);
    assert_refused(cri.reopen_log(id).await, Code::NotFound, &[id]);
    let config = spec::pod("p");
    let result = cri.create(id, &spec::sleeper("c"), &config).await;
    assert_refused(result, Code::NotFound, &[id]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_ids_and_ambiguous_prefixes_are_not_guessed_at() -> Outcome {
    let node = node().await?;
    // Seventeen ids of hexadecimal digits: two begin alike.
    let mut pods = Vec::new();
    for _ in 0..17 {
        let mut config = spec::pod("many");
        let mode = cri::NamespaceMode::Node;
        let option = spec::namespaces(mode, cri::NamespaceMode::Pod, cri::NamespaceMode::Pod);
        spec::pod_security(&mut config).namespace_options = Some(option);
        pods.push(node.cri().run_pod(&config).await?);
    }
    pods.sort();
    let twins = pods
        .windows(2)
        .find(|pair| pair[0][..1] == pair[1][..1])
        .expect("two alike");
    for id in [&twins[0][..1], ""] {
        let code = node.cri().pod(id).await.unwrap_err().code();
        assert!(
            matches!(code, Code::NotFound | Code::InvalidArgument),
            "{id:?}: {code}"
        );
        node.cri().stop_pod(id).await.ok();
    }
    let ready = cri::PodSandboxStateValue {
        state: cri::PodSandboxState::SandboxReady.into(),
    };
    let filter = cri::PodSandboxFilter {
        state: Some(ready),
        ..Default::default()
    };
    assert_eq!(node.cri().list_pods(Some(filter)).await?.len(), 17);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_parts_of_a_pod_are_named() -> Outcome {
    let node = node().await?;
    let request = cri::RunPodSandboxRequest::default();
    let result = node.cri().runtime().run_pod_sandbox(request).await;
    assert_refused(result, Code::InvalidArgument, &["config"]);
    let mut config = spec::pod("p");
    config.metadata = None;
    assert_refused(
        node.cri().run_pod(&config).await,
        Code::InvalidArgument,
        &["metadata"],
    );
    let mut config = spec::pod("p");
    config.metadata.as_mut().expect("metadata").name.clear();
    assert_refused(
        node.cri().run_pod(&config).await,
        Code::InvalidArgument,
        &["name"],
    );
    let config = Some(spec::pod("p"));
    let request = cri::RunPodSandboxRequest {
        config,
        runtime_handler: "nonesuch".to_owned(),
    };
    assert_refused(
        node.cri().runtime().run_pod_sandbox(request).await,
        Code::InvalidArgument,
        &["nonesuch", "native", "runc"],
    );
    assert!(node.cri().list_pods(None).await?.is_empty());
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_would_break_out_of_their_place_are_refused_in_a_pod() -> Outcome {
    let node = node().await?;
    let change = |name: &str, value: &str| {
        let mut config = spec::pod("p");
        let value = value.to_owned();
        let linux = config.linux.get_or_insert_default();
        match name {
            "hostname" => config.hostname = value,
            "log_directory" => config.log_directory = value,
            "cgroup_parent" => linux.cgroup_parent = value,
            "sysctls" => drop(linux.sysctls.insert(value, "1".to_owned())),
            _ => config
                .dns_config
                .get_or_insert_default()
                .servers
                .push(value),
        }
        config
    };
    for (field, value) in [
        ("hostname", "two\nlines"),
        ("hostname", "nul\0byte"),
        ("hostname", "../up"),
        ("log_directory", "relative/path"),
        ("log_directory", "/var/log/../../etc"),
        ("log_directory", "/var/nul\0byte"),
        ("cgroup_parent", "/../../up"),
        ("sysctls", "../../etc/passwd"),
        ("sysctls", "kernel.panic"),
        ("servers", "1.1.1.1\nnameserver 6.6.6.6"),
    ] {
        let result = node.cri().run_pod(&change(field, value)).await;
        assert_refused(result, Code::InvalidArgument, &[field]);
    }
    assert!(node.cri().list_pods(None).await?.is_empty());
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_would_break_out_of_their_place_are_refused_in_a_container() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("p", &logs)).await?;
    let change = |name: &str, value: &str| {
        let mut config = spec::sleeper("c");
        let value = value.to_owned();
        match name {
            "log_path" => config.log_path = value,
            "env" => config.envs.push(cri::KeyValue {
                key: value,
                value: "x".to_owned(),
            }),
            "value" => config.envs.push(cri::KeyValue {
                key: "KEY".to_owned(),
                value,
            }),
            "command" => config.command = vec![value],
            "working_dir" => config.working_dir = value,
            "image" => config.image = Some(spec::image(&value)),
            _ => config.mounts.push(cri::Mount {
                host_path: "/tmp".to_owned(),
                container_path: value,
                ..Default::default()
            }),
        }
        config
    };
    for (field, value, named) in [
        ("log_path", "../../escaped.log", "log_path"),
        ("log_path", "/absolute.log", "log_path"),
        ("log_path", "nul\0byte", "log_path"),
        ("log_path", "two\nlines", "log_path"),
        ("env", "A=B", "env"),
        ("env", "", "env"),
        ("env", "A\0B", "env"),
        ("value", "nul\0byte", "env"),
        ("command", "nul\0byte", "command"),
        ("working_dir", "nul\0byte", "working_dir"),
        ("image", "Not A Reference", "image"),
        ("container_path", "nul\0byte", "container_path"),
        ("container_path", "relative", "container_path"),
    ] {
        let result = node
            .cri()
            .create(&pod.id, &change(field, value), &pod.config)
            .await;
        assert_refused(result, Code::InvalidArgument, &[named]);
    }
    let mut config = spec::sleeper("c");
    config.metadata = None;
    let result = node.cri().create(&pod.id, &config, &pod.config).await;
    assert_refused(result, Code::InvalidArgument, &["metadata"]);
    let mut config = spec::sleeper("c");
    config.image = None;
    let result = node.cri().create(&pod.id, &config, &pod.config).await;
    assert_refused(result, Code::InvalidArgument, &["image"]);

    assert!(node.cri().list_containers(None).await?.is_empty());
    assert_eq!(std::fs::read_dir(&logs)?.count(), 0);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_references_are_refused_by_every_image_call() -> Outcome {
    let node = node().await?;
    for reference in [
        "",
        "registry.k8s.io/UPPER:1",
        "registry.k8s.io/a:tag:tag",
        "registry.k8s.io/a@sha256:12",
        "registry.k8s.io/a@md5:d41d8cd98f00b204e9800998ecf8427e",
        "registry.k8s.io/../../etc/passwd",
        "registry.k8s.io/a b",
        "http://registry.k8s.io/a",
        "registry.k8s.io/nul\0byte",
    ] {
        let status = node.cri().pull(reference).await.expect_err(reference);
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{reference:?}: {status}"
        );
        // A status or removal of what cannot exist may also just find nothing.
        if let Ok(found) = node.cri().image(reference).await {
            assert_eq!(found, None, "{reference:?}");
        }
    }
    assert_eq!(node.cri().list_images().await?.len(), 1);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_an_image_that_is_not_here_is_refused() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("p")).await?;
    let config = spec::container("c", "registry.k8s.io/pause:3.9", &[]);
    let result = node.cri().create(&pod.id, &config, &pod.config).await;
    assert_refused(result, Code::NotFound, &["pause:3.9"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_a_stopped_pod_is_refused() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("p")).await?;
    node.cri().stop_pod(&pod.id).await?;
    let result = node
        .cri()
        .create(&pod.id, &spec::sleeper("c"), &pod.config)
        .await;
    assert_refused(result, Code::FailedPrecondition, &[]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_fails_the_container_by_name() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("p")).await?;
    let config = spec::container("c", spec::BUSYBOX, &["/no/such/program"]);
    let result = pod.start(&node, &config).await;
    let error = result.expect_err("there is no such program");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    for container in node.cri().list_containers(None).await? {
        let status = node.cri().container(&container.id).await?;
        assert_ne!(status.state(), cri::ContainerState::ContainerRunning);
        node.cri().remove(&container.id).await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_built_yet_say_so() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("p")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let request = cri::CheckpointContainerRequest {
        container_id: id,
        ..Default::default()
    };
    let result = node.cri().runtime().checkpoint_container(request).await;
    assert_refused(result, Code::Unimplemented, &[]);
    node.finish().await
}
