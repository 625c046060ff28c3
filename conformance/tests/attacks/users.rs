//! Who a container runs as is never misread, whatever its image writes into its user
//! tables or in their place.

use std::time::Duration;

use carpel_conformance::image::{ImageBuilder, Layer};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use serde_json::json;
use tonic::Code;

use crate::site::{
    Growth, Outcome, Pod, assert_refused, busybox, daemon, end, logging_pod, node, pull,
};

/// Numbers that are none, or of nobody.
const NUMBERS: [&str; 12] = [
    "4294967296",
    "4294967295",
    "2147483648",
    "18446744073709551616",
    "99999999999999999999999999",
    "-1",
    "+0",
    "+1",
    "-0",
    "1000:-1",
    "1000:4294967296",
    "1000:+0",
];
/// Not even numbers.
const NAMES: [&str; 6] = ["0x0", "\u{661}", "\u{660}", " 0", "0 ", "1e3"];

/// A user table in which each of them is root.
fn tables() -> Layer {
    let all = NUMBERS.iter().chain(&NAMES);
    let lines: String = all
        .clone()
        .map(|name| format!("{name}:x:0:0::/root:/bin/sh\n"))
        .collect();
    let groups: String = all.map(|name| format!("{name}:x:0:\n")).collect();
    Layer::new()
        .file("etc/passwd", lines.as_bytes(), 0o644)
        .file("etc/group", format!("{groups}-1:x:0:\n").as_bytes(), 0o644)
}

async fn with_user(node: &Node, name: &str, user: &str) -> anyhow::Result<String> {
    let image = busybox()?.layer(tables()).with("User", json!(user));
    Ok(pull(node, name, image).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_40635_and_2026_46680_a_user_out_of_range_is_nobody() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("range")).await?;
    for (number, user) in NUMBERS.iter().enumerate() {
        let image = with_user(&node, &format!("number{number}"), user).await?;
        let config = spec::container(&format!("c{number}"), &image, &["id"]);
        assert_refused(
            pod.start(&node, &config).await,
            &[Code::InvalidArgument],
            &["user"],
        );
        let told = node.cri().image(&image).await?.expect("it is there");
        // runAsNonRoot rests on this: a number that is told is the one that would run.
        if !user.contains(':') {
            assert_eq!((told.uid, told.username.as_str()), (None, *user));
        }
    }
    for (number, user) in NAMES.iter().enumerate() {
        let image = with_user(&node, &format!("name{number}"), user).await?;
        let told = node.cri().image(&image).await?.expect("it is there");
        assert_eq!((told.uid, told.username.as_str()), (None, *user));
    }
    for value in [-1, 1 << 31, 1 << 32, i64::MAX, i64::MIN] {
        let mut config = spec::sleeper("c");
        spec::security(&mut config).run_as_user = Some(cri::Int64Value { value });
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["run_as_user"]);
        let security = spec::security(&mut config);
        security.run_as_user = Some(cri::Int64Value { value: 1 });
        security.run_as_group = Some(cri::Int64Value { value });
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["run_as_group"]);
        let security = spec::security(&mut config);
        security.run_as_group = None;
        security.supplemental_groups = vec![value];
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["supplemental_groups"]);
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_30892_every_form_of_a_user_is_read_as_it_is_written() -> Outcome {
    let node = node().await?;
    let pod = logging_pod(&node).await?;
    for (number, (user, expected)) in [
        ("33", "33:34"),
        ("033", "33:34"),
        ("33:7", "33:7"),
        ("web", "33:34"),
        ("web:staff", "33:50"),
        ("web:7", "33:7"),
        ("1000", "1000:0"),
        ("1000:1001", "1000:1001"),
        ("", "0:0"),
        (":staff", "0:50"),
        ("2147483647", "2147483647:0"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = busybox()?.layer(honest()).with("User", json!(user));
        let image = pull(&node, &format!("user{number}"), image).await?;
        let script = ["sh", "-c", "echo $(id -u):$(id -g)"];
        let first = spec::container(&format!("init{number}"), &image, &script);
        assert_eq!(
            pod.output(&node, &first).await?,
            format!("{expected}\n"),
            "{user:?}"
        );
        let mut beside = spec::sleeper(&format!("exec{number}"));
        beside.image = Some(spec::image(&image));
        let id = pod.start(&node, &beside).await?;
        let said = node.cri().output(&id, &script).await?;
        assert_eq!(said, format!("{expected}\n"), "{user:?}");
    }
    let image = busybox()?.layer(tables());
    let image = pull(&node, "usernames", image).await?;
    for user in NUMBERS.iter().filter(|user| !user.contains(':')) {
        let mut config = spec::container("c", &image, &["id"]);
        spec::security(&mut config).run_as_username = (*user).to_owned();
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["run_as_username"]);
    }
    end(node).await
}

/// Tables with names that look like numbers.
fn honest() -> Layer {
    Layer::new()
        .file(
            "etc/passwd",
            b"root:x:0:0::/:\nweb:x:33:34::/:\n1000:x:0:0::/:\n",
            0o644,
        )
        .file("etc/group", b"root:x:0:\nstaff:x:50:\n1001:x:0:\n", 0o644)
}

/// Starts a container of an image with strange tables: it fails, or runs, at once.
async fn at_once(node: &Node, pod: &Pod, name: &str, image: ImageBuilder) -> anyhow::Result<bool> {
    let image = pull(node, name, image).await?;
    let mut config = spec::sleeper(name);
    config.image = Some(spec::image(&image));
    let start = pod.start(node, &config);
    match tokio::time::timeout(Duration::from_secs(15), start).await {
        Ok(Ok(id)) => {
            // An exec reads them as well.
            node.cri().exec(&id, &["true"], 10).await?;
            Ok(true)
        }
        Ok(Err(status)) => {
            assert_ne!(status.code(), Code::Unavailable, "{name}: {status}");
            Ok(false)
        }
        Err(_) => anyhow::bail!("{name} hangs"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_4437_and_2026_47262_strange_user_tables_neither_hang_nor_fill_memory() -> Outcome
{
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("tables")).await?;
    let growth = Growth::of(daemon(&node)?)?;
    for file in ["etc/passwd", "etc/group"] {
        let name = file.replace('/', "-");
        let fifo = Layer::new().entry(b'6', file, "", 0o644, &[]);
        at_once(&node, &pod, &format!("{name}-fifo"), busybox()?.layer(fifo)).await?;
        let folder = Layer::new().entry(b'5', file, "", 0o755, &[]);
        at_once(
            &node,
            &pod,
            &format!("{name}-folder"),
            busybox()?.layer(folder),
        )
        .await?;
        for (number, to) in [
            "/dev/zero",
            "/dev/tty",
            "/proc/kmsg",
            "/proc/self/mem",
            "passwd",
        ]
        .iter()
        .enumerate()
        {
            let link = Layer::new().entry(b'2', file, to, 0o777, &[]);
            at_once(
                &node,
                &pod,
                &format!("{name}-link{number}"),
                busybox()?.layer(link),
            )
            .await?;
        }
        let large = Layer::new().file(file, &vec![b'\n'; 11 << 20], 0o644);
        let name = format!("{name}-large");
        let started = at_once(&node, &pod, &name, busybox()?.layer(large)).await?;
        assert!(!started, "{file} of 11 MiB was read");
    }
    // As many lines as can be, each a group of root's.
    let mut lines = String::from("root:x:0:\n");
    for number in 1..400_000 {
        lines += &format!("g{number}:x:{number}:root\n");
    }
    let crowd = Layer::new().file("etc/group", lines.as_bytes(), 0o644);
    let started = at_once(&node, &pod, "crowd", busybox()?.layer(crowd)).await?;
    assert!(!started, "400,000 groups");
    let lines = "a:x:0:0:\n".repeat(1_100_000);
    let many = Layer::new().file("etc/passwd", lines.as_bytes(), 0o644);
    at_once(&node, &pod, "many", busybox()?.layer(many)).await?;
    let grown = growth.kib()?;
    assert!(grown < 96 << 10, "{grown} KiB");
    // A device instead of the file is no layer at all.
    let device = Layer::new().entry(b'3', "etc/passwd", "", 0o644, &[]);
    let result = pull(&node, "device", busybox()?.layer(device)).await;
    assert_refused(result, &[Code::FailedPrecondition], &["etc/passwd"]);
    end(node).await
}
