//! critest, the CRI's own validation suite, against the built daemon.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use carpel_conformance::{Expectations, Node, Outcome, Report, paths};

const SPECS: usize = 117;
const MUST_PASS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn critest_fails_only_where_the_list_says_so() -> anyhow::Result<()> {
    let node = Node::with(&[]).await?;
    let start = Instant::now();
    let report = run(&node)?;
    print(&report, start.elapsed());
    let expected = Expectations::parse(include_str!("../expected-failures.txt"))?;
    let differences = expected.differences(&report);
    ensure!(
        differences.is_empty(),
        "not as listed:\n{}",
        differences.join("\n")
    );
    ensure!(
        report.passed() >= MUST_PASS,
        "{} passed, {MUST_PASS} must",
        report.passed()
    );
    node.rebase()?;
    node.finish().await
}

fn run(node: &Node) -> anyhow::Result<Report> {
    let (folder, temporary) = (node.folder("critest")?, node.folder("tmp")?);
    let endpoint = format!("unix://{}", node.socket().display());
    let json = folder.join("report.json");
    let log = std::fs::File::create(folder.join("log"))?;
    let mut critest = Command::new(paths::tool("critest")?);
    critest
        .arg(format!("-runtime-endpoint={endpoint}"))
        .arg(format!("-image-endpoint={endpoint}"))
        .arg(format!("-ginkgo.json-report={}", json.display()))
        .args(["-ginkgo.no-color", "-ginkgo.timeout=15m"])
        .env("TMPDIR", &temporary)
        .current_dir(&folder)
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Ok(focus) = std::env::var("CRITEST_FOCUS") {
        critest.arg(format!("-ginkgo.focus={focus}"));
    }
    node.inside(|| critest.status())?.context("run critest")?;
    let report = Report::read(&json)
        .with_context(|| std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
    let ran = report
        .specs()
        .keys()
        .filter(|name| !name.contains("benchmark"))
        .count();
    ensure!(ran == SPECS, "critest knows {ran} specs, not {SPECS}");
    Ok(report)
}

fn print(report: &Report, took: Duration) {
    let mut lines = BTreeMap::new();
    for (name, outcome) in report.specs() {
        let line = match outcome {
            Outcome::Passed => continue,
            Outcome::Skipped => "skipped".to_owned(),
            Outcome::Failed(message) => format!("FAILED {}", first_lines(message)),
        };
        lines.insert(name, line);
    }
    for (name, line) in lines {
        println!("critest: {name}: {line}");
    }
    println!(
        "critest: {} passed, {} failed, {} skipped in {:.0} s",
        report.passed(),
        report.failed(),
        report.skipped(),
        took.as_secs_f64()
    );
}

fn first_lines(message: &str) -> String {
    let lines: Vec<_> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[..lines.len().min(6)].join(" | ")
}
