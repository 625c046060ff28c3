//! Container logs: their form, their rotation, and that they lose nothing.

use std::time::Duration;

use carpel_conformance::{LogLine, Node, parse_log, spec};

use crate::checks::{Outcome, Pod, node, until};

fn read(path: &std::path::Path) -> anyhow::Result<Vec<LogLine>> {
    parse_log(&std::fs::read_to_string(path)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_logged_with_its_stream() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("lines", &logs)).await?;
    let script = "echo out; echo err >&2; echo; printf 'no end'";
    let id = pod.start(&node, &spec::shell("c", script)).await?;
    node.cri().wait_exit(&id).await?;
    let lines = read(&logs.join("c.log"))?;
    let of = |stream: &str| -> Vec<(String, bool)> {
        let lines = lines.iter().filter(|line| line.stream == stream);
        lines
            .map(|line| (line.text.clone(), line.partial))
            .collect()
    };
    assert_eq!(of("stderr"), [("err".to_owned(), false)]);
    let stdout = of("stdout");
    assert_eq!(
        stdout[..2],
        [("out".to_owned(), false), (String::new(), false)]
    );
    let last: String = stdout[2..].iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(last, "no end");
    let times: Vec<_> = lines.iter().map(|line| line.time.len()).collect();
    assert!(times.iter().all(|length| *length >= 20), "{lines:?}");
    let status = node.cri().container(&id).await?;
    assert_eq!(status.log_path, logs.join("c.log").display().to_string());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_is_split_and_joins_to_what_was_written() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("long", &logs)).await?;
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo next";
    let id = pod.start(&node, &spec::shell("c", script)).await?;
    node.cri().wait_exit(&id).await?;
    let lines = read(&logs.join("c.log"))?;
    let end = lines
        .iter()
        .position(|line| !line.partial)
        .expect("an end of the line");
    assert!(end > 0, "a line of 100000 bytes in one piece");
    let joined: String = lines[..=end]
        .iter()
        .map(|line| line.text.as_str())
        .collect();
    assert_eq!(joined, "x".repeat(100_000));
    assert_eq!(lines[end + 1].text, "next");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_neither_loses_nor_doubles_a_line() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("rotation", &logs)).await?;
    let config = spec::container("c", spec::TOOLS, &["/count", "1", "20000", "20"]);
    let id = pod.start(&node, &config).await?;
    let current = logs.join("c.log");
    let mut files = Vec::new();
    for number in 0..8 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let rotated = logs.join(format!("c.log.{number}"));
        std::fs::rename(&current, &rotated)?;
        match node.cri().reopen_log(&id).await {
            Ok(()) => {
                assert!(
                    current.is_file(),
                    "the new file is there when the call returns"
                );
                let length = std::fs::metadata(&rotated)?.len();
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert_eq!(
                    std::fs::metadata(&rotated)?.len(),
                    length,
                    "written after reopen"
                );
                files.push(rotated);
            }
            // It has ended meanwhile; rename back as a kubelet does.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                std::fs::rename(&rotated, &current)?;
                break;
            }
            Err(status) => return Err(status.into()),
        }
    }
    assert!(files.len() >= 2, "it ended before it could be rotated");
    node.cri().wait_exit(&id).await?;
    files.push(current);
    let mut numbers = Vec::new();
    for file in &files {
        numbers.extend(read(file)?.into_iter().map(|line| line.text));
    }
    let expected: Vec<_> = (1..=20000).map(|number| format!("line {number}")).collect();
    assert!(
        numbers == expected,
        "{} lines, {} expected",
        numbers.len(),
        expected.len()
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_a_log_is_read_and_dropped() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("dropped")).await?;
    let mut config = spec::shell("c", "head -c 5000000 /dev/zero; exit 6");
    config.log_path = String::new();
    let id = pod.start(&node, &config).await?;
    assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 6);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_log_path_are_made() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?.join("later");
    let pod = Pod::run(&node, spec::logging_pod("folders", &logs)).await?;
    let mut config = spec::shell("c", "echo here");
    config.log_path = "web/0.log".to_owned();
    let id = pod.start(&node, &config).await?;
    node.cri().wait_exit(&id).await?;
    until("the line is there", || async {
        Ok(read(&logs.join("web/0.log"))?
            .iter()
            .any(|line| line.text == "here"))
    })
    .await?;
    node.finish().await
}
