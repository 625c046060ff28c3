//! Containers: their life, their ends, what they run.

use std::time::{Duration, Instant};

use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_lives_from_created_over_running_to_exited() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("life")).await?;
    let mut config = spec::shell("c", "sleep 0.2; exit 3");
    config.labels.insert("role".into(), "test".into());
    config.annotations.insert("note".into(), "kept".into());
    let id = node.cri().create(&pod.id, &config, &pod.config).await?;
    let created = node.cri().container(&id).await?;
    assert_eq!(created.state(), cri::ContainerState::ContainerCreated);
    assert_eq!((created.started_at, created.finished_at), (0, 0));

    node.cri().start(&id).await?;
    assert_eq!(
        node.cri().container(&id).await?.state(),
        cri::ContainerState::ContainerRunning
    );
    let exited = node.cri().wait_exit(&id).await?;
    assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"));
    assert!(exited.created_at <= exited.started_at);
    assert!(exited.started_at + 200_000_000 <= exited.finished_at);
    assert_eq!(
        (&exited.labels, &exited.annotations),
        (&config.labels, &config.annotations)
    );
    assert_eq!(exited.metadata, config.metadata);
    assert_eq!(
        node.cri().start(&id).await.unwrap_err().code(),
        tonic::Code::FailedPrecondition
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_by_itself_or_by_signal_is_told_by_its_code() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("codes")).await?;
    for (script, code, reason) in [
        ("exit 0", 0, "Completed"),
        ("exit 42", 42, "Error"),
        // The shell is not the first process of the shared namespace, so signals end it.
        ("kill -KILL $$", 137, "Error"),
        ("kill -TERM $$", 143, "Error"),
    ] {
        let name = format!("code-{code}");
        let id = pod.start(&node, &spec::shell(&name, script)).await?;
        let status = node.cri().wait_exit(&id).await?;
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (code, reason),
            "{script}"
        );
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_asks_first_and_kills_when_the_grace_is_over() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("stop")).await?;
    let willing = pod
        .start(
            &node,
            &spec::shell("willing", "trap 'exit 7' TERM; sleep 100 & wait"),
        )
        .await?;
    let deaf = pod
        .start(
            &node,
            &spec::shell("deaf", "trap '' TERM; sleep 100; sleep 100"),
        )
        .await?;
    // A trap that is not set yet would let the signal end the shell.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let start = Instant::now();
    node.cri().stop(&willing, 30).await?;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(node.cri().container(&willing).await?.exit_code, 7);

    let start = Instant::now();
    node.cri().stop(&deaf, 1).await?;
    assert!(
        (1..5).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(node.cri().container(&deaf).await?.exit_code, 137);
    node.cri().stop(&deaf, 1).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stop_with_less_grace_shortens_the_first() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("hurry")).await?;
    let deaf = pod
        .start(
            &node,
            &spec::shell("deaf", "trap '' TERM; sleep 100; sleep 100"),
        )
        .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    let hurry = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.cri().stop(&deaf, 0).await
    };
    let (first, second) = tokio::join!(node.cri().stop(&deaf, 60), hurry);
    first?;
    second?;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_can_be_removed_in_every_state() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("remove")).await?;
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("created"), &pod.config)
        .await?;
    let running = pod.start(&node, &spec::sleeper("running")).await?;
    let exited = pod.start(&node, &spec::shell("exited", "exit 0")).await?;
    node.cri().wait_exit(&exited).await?;
    for id in [&created, &running, &exited] {
        node.cri().remove(id).await?;
        node.cri().remove(id).await?;
        assert_eq!(
            node.cri().container(id).await.unwrap_err().code(),
            tonic::Code::NotFound
        );
    }
    assert!(node.cri().list_containers(None).await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_pod_removes_its_running_containers() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("whole")).await?;
    pod.start(&node, &spec::sleeper("a")).await?;
    pod.start(&node, &spec::shell("b", "trap '' TERM; sleep 100"))
        .await?;
    node.cri().remove_pod(&pod.id).await?;
    assert!(node.cri().list_containers(None).await?.is_empty());
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_container_started_ends_with_it() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("children")).await?;
    let script = "(setsid sleep 7654 &) ; sleep 0.2; exit 0";
    let id = pod.start(&node, &spec::shell("c", script)).await?;
    node.cri().wait_exit(&id).await?;
    until("the child is gone", || async {
        let processes = node.snapshot()?.processes;
        Ok(!processes
            .iter()
            .any(|process| process.contains("sleep 7654")))
    })
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_containers_obey_their_filter() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("one")).await?;
    let other = Pod::run(&node, spec::pod("two")).await?;
    let mut labelled = spec::sleeper("labelled");
    labelled.labels.insert("role".into(), "web".into());
    let labelled = pod.start(&node, &labelled).await?;
    let plain = node
        .cri()
        .create(&other.id, &spec::sleeper("plain"), &other.config)
        .await?;

    let find = async |filter: cri::ContainerFilter| -> anyhow::Result<Vec<String>> {
        let found = node.cri().list_containers(Some(filter)).await?;
        Ok(found.into_iter().map(|container| container.id).collect())
    };
    let none = cri::ContainerFilter::default;
    let created = cri::ContainerStateValue {
        state: cri::ContainerState::ContainerCreated.into(),
    };
    let label = [("role".to_owned(), "web".to_owned())].into();
    assert_eq!(
        find(cri::ContainerFilter {
            label_selector: label,
            ..none()
        })
        .await?,
        [&*labelled]
    );
    assert_eq!(
        find(cri::ContainerFilter {
            state: Some(created),
            ..none()
        })
        .await?,
        [&*plain]
    );
    let pod_id = pod.id.clone();
    assert_eq!(
        find(cri::ContainerFilter {
            pod_sandbox_id: pod_id,
            ..none()
        })
        .await?,
        [&*labelled]
    );
    let prefix = plain[..12].to_owned();
    assert_eq!(
        find(cri::ContainerFilter {
            id: prefix,
            ..none()
        })
        .await?,
        [&*plain]
    );
    assert_eq!(find(none()).await?.len(), 2);
    assert_eq!(node.cri().container(&labelled[..12]).await?.id, labelled);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_twice_for_one_container_gives_one_container() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("twice")).await?;
    let config = spec::sleeper("c");
    let create = || node.cri().create(&pod.id, &config, &pod.config);
    let (first, second) = tokio::join!(create(), create());
    assert_eq!(first?, second?);
    assert_eq!(node.cri().list_containers(None).await?.len(), 1);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn command_arguments_environment_and_folder_are_as_asked() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("process", &logs)).await?;
    let mut config = spec::container("c", spec::BUSYBOX, &["/bin/sh", "-c"]);
    config.args = vec![
        "pwd; echo $GREETING $PATH; echo \"$0\"".to_owned(),
        "last one".to_owned(),
    ];
    config.working_dir = "/var/lib".to_owned();
    config.envs = vec![cri::KeyValue {
        key: "GREETING".into(),
        value: "hello there".into(),
    }];
    let id = pod.start(&node, &config).await?;
    assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 0);
    let log = std::fs::read_to_string(logs.join("c.log"))?;
    let lines = carpel_conformance::parse_log(&log)?;
    let text: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        text,
        ["/var/lib", &format!("hello there {path}"), "last one"]
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_command_runs_what_its_image_says() -> Outcome {
    let node = node().await?;
    node.cri().pull("registry.k8s.io/pause:3.9").await?;
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("image-command")).await?;
    let mut config = spec::container("c", "registry.k8s.io/pause:3.9", &[]);
    config.linux = None;
    let id = pod.start(&node, &config).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = node.cri().container(&id).await?;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(
        status.image.unwrap_or_default().image,
        "registry.k8s.io/pause:3.9"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_over_its_memory_limit_is_told_apart() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom")).await?;
    let mut config = spec::shell("c", "dd if=/dev/zero of=/dev/null bs=60M");
    let limits = spec::resources(&mut config);
    limits.memory_limit_in_bytes = 15 << 20;
    limits.memory_swap_limit_in_bytes = 15 << 20;
    let id = pod.start(&node, &config).await?;
    let status = node.cri().wait_exit(&id).await?;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
    node.finish().await
}
