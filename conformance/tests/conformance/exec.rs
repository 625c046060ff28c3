//! ExecSync, the probe path.

use std::time::{Duration, Instant};

use carpel_conformance::spec;

use crate::checks::{Outcome, Pod, assert_refused, node};

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_and_the_exit_code_come_back() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("exec")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let script = "printf out; printf err >&2; exit 5";
    let reply = node.cri().exec(&id, &["sh", "-c", script], 10).await?;
    assert_eq!(
        (reply.stdout.as_slice(), reply.stderr.as_slice()),
        (&b"out"[..], &b"err"[..])
    );
    assert_eq!(reply.exit_code, 5);
    let reply = node
        .cri()
        .exec(&id, &["sh", "-c", "kill -9 $$"], 10)
        .await?;
    assert_eq!(reply.exit_code, 137);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_time_out_a_command_ends_with_everything_it_started() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("time-out")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let start = Instant::now();
    let script = "(setsid sleep 8765 &); sleep 8765";
    let result = node.cri().exec(&id, &["sh", "-c", script], 1).await;
    assert_refused(result, tonic::Code::DeadlineExceeded, &["1"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let left = node
        .cri()
        .exec(&id, &["pgrep", "-f", "sleep 8765"], 10)
        .await?;
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    node.cri().output(&id, &["true"]).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_at_its_limit_and_the_command_goes_on() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("limit")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let script = "head -c 3000000 /dev/zero; echo done >&2";
    let reply = node.cri().exec(&id, &["sh", "-c", script], 30).await?;
    assert_eq!((reply.stdout.len(), reply.exit_code), (3_000_000, 0));

    // The whole reply must fit the 16 MiB that clients accept, so this one loses its end.
    let script = "head -c 30000000 /dev/zero; exit 4";
    let reply = node.cri().exec(&id, &["sh", "-c", script], 60).await?;
    assert!(reply.stdout.len() > 15_000_000, "{}", reply.stdout.len());
    assert_eq!(reply.exit_code, 4);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_told_by_name() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("missing")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let result = node.cri().exec(&id, &["/no/such/program"], 10).await;
    match result {
        Ok(reply) => assert!(matches!(reply.exit_code, 126 | 127), "{reply:?}"),
        Err(status) => assert!(status.message().contains("/no/such/program"), "{status}"),
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_running_containers_take_commands() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("states")).await?;
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("created"), &pod.config)
        .await?;
    let exited = pod.start(&node, &spec::shell("exited", "exit 0")).await?;
    node.cri().wait_exit(&exited).await?;
    for id in [&created, &exited] {
        let result = node.cri().exec(id, &["true"], 10).await;
        assert_refused(result, tonic::Code::FailedPrecondition, &[]);
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_each_get_their_own_output() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("many")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (cri, id) = (node.cri().clone(), id.clone());
        tasks.spawn(async move {
            let text = number.to_string();
            (
                cri.output(&id, &["sh", "-c", &format!("echo {text}")])
                    .await,
                text,
            )
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (output, text) = done?;
        assert_eq!(output?, format!("{text}\n"));
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_nearly_16_mib_is_read() -> Outcome {
    let node = node().await?;
    let filter = k8s_cri::v1::PodSandboxFilter {
        label_selector: [("big".to_owned(), "x".repeat((16 << 20) - 1000))].into(),
        ..Default::default()
    };
    assert!(node.cri().list_pods(Some(filter)).await?.is_empty());
    node.finish().await
}
