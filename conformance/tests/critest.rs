//! critest, the CRI's own validation suite, against the built daemon: once for each
//! runtime handler.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use carpel_conformance::image::{Content, ImageBuilder, Layer};
use carpel_conformance::{Expectations, Node, Outcome, Report, Settings, paths};

const SPECS: usize = 117;
const MUST_PASS: usize = 97;

/// Digest of the image that "public image with digest" pulls: bytes of a public
/// registry, which no test can serve.
const PUBLIC_DIGEST: &str = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

#[tokio::test(flavor = "multi_thread")]
async fn critest_fails_only_where_the_list_says_so() -> anyhow::Result<()> {
    validate("native").await
}

#[tokio::test(flavor = "multi_thread")]
async fn critest_fails_only_where_the_list_says_so_with_runc() -> anyhow::Result<()> {
    validate("runc").await
}

async fn validate(handler: &str) -> anyhow::Result<()> {
    let node = Node::start(Settings::default().handler(handler)).await?;
    let start = Instant::now();
    let report = run(&node)?;
    print(handler, &report, start.elapsed());
    if std::env::var_os("CRITEST_FOCUS").is_some() {
        ensure!(report.failed() == 0, "{} failed", report.failed());
        return Ok(());
    }
    let expected = Expectations::parse(include_str!("../expected-failures.txt"))?;
    let differences = expected.differences(&report);
    ensure!(
        differences.is_empty(),
        "{handler}: not as listed:\n{}",
        differences.join("\n")
    );
    ensure!(
        report.passed() == MUST_PASS,
        "{handler}: {} passed, {MUST_PASS} must",
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
    let mut critest = Command::new(program(node, &folder)?);
    critest
        .arg(format!("-runtime-endpoint={endpoint}"))
        .arg(format!("-image-endpoint={endpoint}"))
        .arg(format!("-runtime-handler={}", node.handler()))
        .arg(format!("-ginkgo.json-report={}", json.display()))
        .args(["-ginkgo.no-color", "-ginkgo.timeout=15m"])
        .env("TMPDIR", &temporary)
        .current_dir(&folder)
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Ok(focus) = std::env::var("CRITEST_FOCUS") {
        critest.arg(format!("-ginkgo.focus={focus}"));
    }
    node.inside(|| execute(&mut critest))?
        .context("run critest")?;
    let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    for line in said.lines().filter(|line| line.contains("Random Seed")) {
        println!("critest: {}: {}", node.handler(), line.trim());
    }
    let report = Report::read(&json).with_context(|| said)?;
    let ran = report
        .specs()
        .keys()
        .filter(|name| !name.contains("benchmark"))
        .count();
    ensure!(ran == SPECS, "critest knows {ran} specs, not {SPECS}");
    Ok(report)
}

/// The file is our own and new: a process that another test is just starting may have
/// it open for writing for a moment.
fn execute(program: &mut Command) -> std::io::Result<ExitStatus> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match program.status() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            status => return status,
        }
    }
}

/// A copy of critest in which the digest of an image that only a public registry
/// has is that of an index of ours. Nothing else of it is changed: the spec pulls by
/// that digest, and what it pulls is checked against it as ever.
fn program(node: &Node, folder: &Path) -> anyhow::Result<PathBuf> {
    let ours = index(node);
    let mut bytes = std::fs::read(paths::tool("critest")?).context("read critest")?;
    let places: Vec<usize> = bytes
        .windows(PUBLIC_DIGEST.len())
        .enumerate()
        .filter(|(_, window)| *window == PUBLIC_DIGEST.as_bytes())
        .map(|(place, _)| place)
        .collect();
    let [place] = places[..] else {
        anyhow::bail!(
            "critest has the digest {PUBLIC_DIGEST} {} times, not once",
            places.len()
        );
    };
    ensure!(
        ours.len() == PUBLIC_DIGEST.len(),
        "digest {ours:?} is of another length"
    );
    bytes[place..place + ours.len()].copy_from_slice(ours.as_bytes());
    let path = folder.join("critest.test");
    std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Serves an index for more than one platform, and gives its digest in hexadecimal.
fn index(node: &Node) -> String {
    let mut content = Content::default();
    let digest = ImageBuilder::new()
        .layer(Layer::new().file("digest", b"asked for by digest\n", 0o644))
        .push_index(&mut content, &[]);
    node.registry().push(content);
    digest.trim_start_matches("sha256:").to_owned()
}

fn print(handler: &str, report: &Report, took: Duration) {
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
        println!("critest: {handler}: {name}: {line}");
    }
    println!(
        "critest: {handler}: {} passed, {} failed, {} skipped in {:.0} s",
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
