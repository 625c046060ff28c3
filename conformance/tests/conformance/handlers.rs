//! Runtime handlers: the native executor, and runtimes by their command line.

use std::path::Path;

use carpel_conformance::spec::{self, BUSYBOX};
use carpel_conformance::{Cri, Node, Settings};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, until};

async fn node(settings: Settings) -> anyhow::Result<Node> {
    Node::start(settings.images(&[BUSYBOX])).await
}

/// What the runtime keeps state of.
fn states(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_handler_is_told_with_what_it_can() -> Outcome {
    let more = "[handlers.gone]\nkind = \"oci\"\nbinary = \"/no/such/runtime\"\n";
    let node = node(Settings::default().handler("").more(more)).await?;
    let status = node.cri().status(false).await?;
    let told: Vec<_> = status
        .runtime_handlers
        .iter()
        .map(|handler| {
            let features = handler.features.unwrap_or_default();
            assert!(!features.user_namespaces);
            (handler.name.as_str(), features.recursive_read_only_mounts)
        })
        .collect();
    // runc tells it of itself since 1.1, and has it.
    let expected = [
        ("", true),
        ("native", true),
        ("gone", false),
        ("runc", true),
    ];
    assert_eq!(told, expected);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_handlers_run_beside_each_other() -> Outcome {
    let node = node(Settings::default().handler("")).await?;
    let runc = Cri::with_handler(node.socket(), "runc");
    let root = node.run_root().join("oci/runc");
    for (cri, handler) in [(node.cri(), ""), (&runc, "runc")] {
        let config = spec::pod("beside");
        let pod = cri.run_pod(&config).await?;
        assert_eq!(cri.pod(&pod).await?.runtime_handler, handler);
        let id = cri.run(&pod, &spec::sleeper("c"), &config).await?;
        let known = if handler.is_empty() {
            vec![]
        } else {
            vec![id.clone()]
        };
        assert_eq!(states(&root), known, "what runc knows");
        assert_eq!(cri.output(&id, &["echo", "hello"]).await?, "hello\n");
    }
    let mut listed: Vec<_> = node
        .cri()
        .list_pods(None)
        .await?
        .into_iter()
        .map(|pod| pod.runtime_handler)
        .collect();
    listed.sort();
    assert_eq!(listed, ["", "runc"]);
    for pod in node.cri().list_pods(None).await? {
        node.cri().remove_pod(&pod.id).await?;
    }
    assert_eq!(states(&root), Vec::<String>::new());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_handler_makes_the_pods_that_ask_for_none() -> Outcome {
    let more = "[runtime]\ndefault_handler = \"runc\"\n";
    let node = node(Settings::default().handler("").more(more)).await?;
    let pod = Pod::run(&node, spec::pod("default")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    assert_eq!(node.cri().pod(&pod.id).await?.runtime_handler, "runc");
    assert_eq!(states(&node.run_root().join("oci/runc")), [id]);
    let native = Cri::with_handler(node.socket(), "native");
    let config = spec::pod("native");
    let other = native.run_pod(&config).await?;
    native.run(&other, &spec::sleeper("c"), &config).await?;
    assert_eq!(states(&node.run_root().join("oci/runc")).len(), 1);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_not_installed_is_named_when_it_is_needed() -> Outcome {
    let more = "[handlers.gone]\nkind = \"oci\"\nbinary = \"/no/such/runtime\"\n";
    let node = node(Settings::default().more(more)).await?;
    let gone = Cri::with_handler(node.socket(), "gone");
    assert_refused(
        gone.run_pod(&spec::pod("p")).await,
        Code::FailedPrecondition,
        &["gone", "/no/such/runtime"],
    );
    assert!(node.cri().list_pods(None).await?.is_empty());
    node.finish().await
}

/// A runtime that fails in a way of its own, else is runc.
fn broken(node_folder: &Path, verb: &str, script: &str) -> anyhow::Result<String> {
    let path = node_folder.join("runtime");
    let text = format!(
        "log=; verb=; previous=\n\
         for word in \"$@\"; do\n\
           case $previous in --log) log=$word;; esac\n\
           case $word in {verb}) verb=yes;; esac\n\
           previous=$word\n\
         done\n\
         if [ \"$verb\" ]; then\n{script}\nfi\n\
         exec runc \"$@\"\n"
    );
    std::fs::write(&path, text)?;
    Ok(format!(
        "[handlers.broken]\nkind = \"oci\"\nbinary = \"sh\"\nargs = [{path:?}]\n"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_says_reaches_the_client_and_nothing_is_left() -> Outcome {
    let folder = tempfile::tempdir()?;
    let script = r#"echo '{"level":"error","msg":"the moon is in the wrong place"}' >> "$log"
        exit 1"#;
    let more = broken(folder.path(), "create", script)?;
    let node = node(Settings::default().more(&more).handler("")).await?;
    let broken = Cri::with_handler(node.socket(), "broken");
    let config = spec::pod("broken");
    let pod = broken.run_pod(&config).await?;
    for _ in 0..2 {
        assert_refused(
            broken.create(&pod, &spec::sleeper("c"), &config).await,
            Code::Internal,
            &["the moon is in the wrong place", "create"],
        );
        assert!(node.cri().list_containers(None).await?.is_empty());
    }
    node.cri().remove_pod(&pod).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_the_runtime_refuses_can_be_tried_again() -> Outcome {
    let folder = tempfile::tempdir()?;
    let once = folder.path().join("once");
    let script = format!("if [ ! -e {once:?} ]; then : > {once:?}; echo not yet >&2; exit 1; fi");
    let more = broken(folder.path(), "start", &script)?;
    let node = node(Settings::default().more(&more).handler("broken")).await?;
    let pod = Pod::run(&node, spec::pod("later")).await?;
    let config = spec::shell("c", "exit 4");
    let id = node.cri().create(&pod.id, &config, &pod.config).await?;
    assert_refused(node.cri().start(&id).await, Code::Internal, &["not yet"]);
    let state = node.cri().container(&id).await?.state();
    assert_eq!(state, cri::ContainerState::ContainerCreated);
    node.cri().start(&id).await?;
    assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 4);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_knows_of_no_record_is_forgotten_at_the_next_start() -> Outcome {
    let node = node(Settings::default().handler("runc")).await?;
    let pod = Pod::run(&node, spec::pod("kept")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let root = node.run_root().join("oci/runc");
    node.kill()?;
    std::fs::create_dir(root.join("0123456789abcdef"))?;
    node.restart().await?;
    until("the stray state is gone", || async {
        Ok(states(&root) == [id.clone()])
    })
    .await?;
    assert_eq!(node.cri().output(&id, &["echo", "x"]).await?, "x\n");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_its_handlers_entry_and_can_be_removed() -> Outcome {
    let node = node(Settings::default().handler("runc")).await?;
    let pod = Pod::run(&node, spec::pod("orphan")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    node.kill()?;
    let text = std::fs::read_to_string(node.config())?;
    let entry = "[handlers.runc]\nkind = \"oci\"\nbinary = \"runc\"\n";
    assert!(text.contains(entry), "{text}");
    std::fs::write(node.config(), text.replace(entry, ""))?;
    node.restart().await?;
    let state = node.cri().container(&id).await?.state();
    assert_eq!(state, cri::ContainerState::ContainerRunning);
    assert_refused(
        node.cri().exec(&id, &["true"], 10).await,
        Code::FailedPrecondition,
        &["runc", "not configured"],
    );
    node.cri().remove_pod(&pod.id).await?;
    node.kill()?;
    std::fs::write(node.config(), text)?;
    node.restart().await?;
    until("its state is forgotten", || async {
        Ok(states(&node.run_root().join("oci/runc")).is_empty())
    })
    .await?;
    node.finish().await
}
