//! crictl's lists and looks: every filter and every form of output.

use carpel_conformance::Node;
use serde_json::Value;

use crate::checks::{Outcome, until};
use crate::crictl::{IMAGE, crictl, files, json, run, start};

/// Short ids that a quiet list gives.
fn ids(node: &Node, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let said = crictl(node, arguments)?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_pods_are_found_by_every_filter() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (web_pod, web) = start(&node, "web")?;
    let (db_pod, db) = start(&node, "db")?;
    crictl(&node, &["stop", &db])?;
    let both = [&*db, &*web];
    let cases: [(&[&str], &[&str]); 15] = [
        (&[], &[&web]),
        (&["-a"], &both),
        (&["--id", &web], &[&web]),
        (&["-a", "--id", &db[..10]], &[&db]),
        (&["-a", "--pod", &web_pod], &[&web]),
        (&["-a", "--state", "Exited"], &[&db]),
        (&["-a", "--state", "running"], &[&web]),
        (&["-a", "--label", "part=db"], &[&db]),
        (&["-a", "--label", "part=none"], &[]),
        (&["-a", "--name", "^main-w"], &[&web]),
        (&["-a", "--image", IMAGE], &both),
        (&["-a", "--image", "none/such"], &[]),
        (&["--last", "2"], &both),
        (&["--latest"], &[&db]),
        (&["-a", "--namespace", "space-web"], &[]),
    ];
    for (filter, expected) in cases {
        // A namespace is the kubelet's label, which these containers do not have.
        let found = ids(&node, &[&["ps", "-q", "--no-trunc"], filter].concat())?;
        assert_eq!(found, expected, "ps {filter:?}");
    }
    let both = [&*db_pod, &*web_pod];
    crictl(&node, &["stopp", &db_pod])?;
    let cases: [(&[&str], &[&str]); 10] = [
        (&[], &both),
        (&["--id", &web_pod], &[&web_pod]),
        (&["--id", &db_pod[..10]], &[&db_pod]),
        (&["--state", "ready"], &[&web_pod]),
        (&["--state", "notready"], &[&db_pod]),
        (&["--label", "app=web"], &[&web_pod]),
        (&["--name", "^d"], &[&db_pod]),
        (&["--namespace", "^space-w"], &[&web_pod]),
        (&["--last", "1"], &[&db_pod]),
        (&["--latest"], &[&db_pod]),
    ];
    for (filter, expected) in cases {
        let found = ids(&node, &[&["pods", "-q", "--no-trunc"], filter].concat())?;
        assert_eq!(found, expected, "pods {filter:?}");
    }
    let table = crictl(&node, &["ps", "-a", "-v"])?;
    assert!(table.contains(&web) && table.contains("main-db"), "{table}");
    let listed = json(&node, &["ps", "-a", "-o", "json"])?;
    assert_eq!(
        listed["containers"].as_array().map(Vec::len),
        Some(2),
        "{listed}"
    );
    let yaml = crictl(&node, &["pods", "-o", "yaml"])?;
    assert!(yaml.contains(&format!("id: {web_pod}")), "{yaml}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_come_in_every_form() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (pod, container) = start(&node, "web")?;
    let image = "{{.status.id}}";
    for (command, id, template, expected) in [
        (
            "inspect",
            &*container,
            "{{.info.pid}} {{.status.metadata.name}}",
            "main-web",
        ),
        (
            "inspectp",
            &pod,
            "{{.status.metadata.namespace}}",
            "space-web",
        ),
        ("inspecti", IMAGE, image, "sha256:"),
    ] {
        let whole = json(&node, &[command, "-o", "json", id])?;
        assert!(
            whole["status"].is_object() && whole["info"].is_object(),
            "{command}: {whole}"
        );
        let quiet = json(&node, &[command, "-q", "-o", "json", id])?;
        assert!(quiet["status"].is_object(), "{command}: {quiet}");
        let nothing = quiet["info"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        assert!(nothing, "{command}: {quiet}");
        let yaml = crictl(&node, &[command, "-o", "yaml", id])?;
        assert!(
            yaml.contains("status:") && yaml.contains("info:"),
            "{command}: {yaml}"
        );
        let table = crictl(&node, &[command, "-o", "table", id])?;
        assert!(table.contains("ID:"), "{command}: {table}");
        let said = crictl(
            &node,
            &[command, "-o", "go-template", "--template", template, id],
        )?;
        assert!(said.contains(expected), "{command}: {said}");
    }
    let several = json(&node, &["inspect", &container, &container])?;
    assert_eq!(several.as_array().map(Vec::len), Some(2), "{several}");
    let spec = json(&node, &["inspect", &container])?["info"]["runtimeSpec"].clone();
    assert!(spec["linux"]["namespaces"].is_array(), "{spec}");
    let by_filter = json(&node, &["inspectp", "--name", "web"])?;
    assert_eq!(by_filter["status"]["id"], Value::String(pod));
    let info = crictl(
        &node,
        &["info", "-o", "go-template", "--template", "{{.status}}"],
    )?;
    assert!(info.contains("NetworkReady"), "{info}");
    for missing in ["inspect", "inspectp", "inspecti"] {
        assert!(
            !run(&node, &[missing, "no-such"])?.status.success(),
            "{missing}"
        );
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_shown_in_part_and_as_they_grow() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let script = "for i in 1 2 3; do echo out $i; done; echo err >&2; sleep 1; echo late; sleep 1";
    let files = files(&node, "logs", script)?;
    let container = crictl(&node, &["run", "--no-pull", &files.container, &files.pod])?;
    let container = container.trim();
    // Ends by itself when the container does.
    let all = crictl(&node, &["logs", "-f", container])?;
    assert!(
        all.contains("out 1\nout 2\nout 3\n") && all.ends_with("late\n"),
        "{all}"
    );
    until("the container has ended", || async {
        Ok(crictl(&node, &["ps", "-q"])?.is_empty())
    })
    .await?;
    let show = |arguments: &[&str]| crictl(&node, &[&["logs"], arguments, &[container]].concat());
    assert_eq!(show(&["--tail", "1"])?, "late\n");
    assert_eq!(show(&["--limit-bytes", "6"])?, "out 1\n");
    assert_eq!(
        show(&["--stream", "stdout"])?,
        "out 1\nout 2\nout 3\nlate\n"
    );
    assert_eq!(show(&["--since", "0s"])?, "");
    assert!(show(&["--since", "10m"])?.contains("out 1"));
    let stamped = show(&["-t", "--tail", "1"])?;
    assert!(
        stamped.contains('T') && stamped.ends_with(" late\n"),
        "{stamped}"
    );
    // The file of the attempt before is named by the kubelet's rule.
    let status = json(&node, &["inspect", container])?;
    let log = status["status"]["logPath"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(std::path::Path::new(&log).is_absolute(), "{status}");
    assert!(
        !run(&node, &["logs", "--previous", container])?
            .status
            .success()
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_reopened_before_it_is_shown() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (_, container) = start(&node, "reopen")?;
    let status = json(&node, &["inspect", &container])?;
    let log = status["status"]["logPath"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    std::fs::rename(&log, format!("{log}.1"))?;
    crictl(&node, &["logs", "-r", &container])?;
    assert!(std::path::Path::new(&log).exists());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_one_container_and_in_many() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (_, web) = start(&node, "web")?;
    let (_, db) = start(&node, "db")?;
    let exec = |arguments: &[&str]| run(&node, &[&["exec", "-s"], arguments].concat());
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let said = exec(&[&web, "sh", "-c", "echo out; echo err >&2"])?;
    // It prints both streams to its own standard output.
    let said = text(&said);
    assert!(said.contains("out\n") && said.contains("err\n"), "{said}");
    assert!(!exec(&[&web, "false"])?.status.success());
    let late = exec(&["--timeout", "1", &web, "sleep", "100"])?;
    assert!(!late.status.success());
    let late = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(late.contains("DeadlineExceeded"), "{late}");

    let many = exec(&["--name", "^main-", "echo", "here"])?;
    assert_eq!(text(&many).matches("here").count(), 2, "{many:?}");
    let parallel = exec(&["-x", "--state", "Running", "echo", "here"])?;
    assert_eq!(text(&parallel).matches("here").count(), 2, "{parallel:?}");
    let labelled = exec(&[
        "-q",
        "--label",
        "part=db",
        "cat",
        "/proc/sys/kernel/hostname",
    ])?;
    assert_eq!(
        text(&labelled).matches("carpel-node").count(),
        1,
        "{labelled:?}"
    );
    crictl(&node, &["stop", &db])?;
    assert!(!exec(&[&db, "true"])?.status.success());
    node.finish().await
}
