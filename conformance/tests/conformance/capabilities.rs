//! What a container's processes may do.

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node};

/// `Inh`, `Prm`, `Eff`, `Bnd`, `Amb` of a status file.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Sets {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
}

const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;
const SYS_RESOURCE: u64 = 1 << 24;
/// The fourteen that Docker made usual.
const USUAL: u64 = 0xa804_25fb;

fn parse(status: &str) -> Sets {
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(u64::MAX)
    };
    Sets {
        inheritable: of("CapInh:"),
        permitted: of("CapPrm:"),
        effective: of("CapEff:"),
        bounding: of("CapBnd:"),
        ambient: of("CapAmb:"),
    }
}

fn daemon(node: &Node) -> anyhow::Result<Sets> {
    let pid = node.daemon_pid().unwrap_or_default();
    Ok(parse(&std::fs::read_to_string(format!(
        "/proc/{pid}/status"
    ))?))
}

fn request(add: &[&str], drop: &[&str], ambient: &[&str]) -> cri::Capability {
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
    cri::Capability {
        add_capabilities: words(add),
        drop_capabilities: words(drop),
        add_ambient_capabilities: words(ambient),
    }
}

fn config(name: &str, user: i64, capabilities: cri::Capability) -> cri::ContainerConfig {
    let mut config = spec::shell(name, "cat /proc/self/status; exec sleep 100000");
    let security = spec::security(&mut config);
    security.capabilities = Some(capabilities);
    security.run_as_user = Some(cri::Int64Value { value: user });
    config
}

/// The sets of the first process and, which must be the same, of another one.
async fn sets(node: &Node, pod: &Pod, config: &cri::ContainerConfig) -> anyhow::Result<Sets> {
    let id = pod.start(node, config).await?;
    let other = parse(
        &node
            .cri()
            .output(&id, &["cat", "/proc/self/status"])
            .await?,
    );
    let name = config.metadata.clone().unwrap_or_default().name;
    let log = std::path::Path::new(&pod.config.log_directory).join(format!("{name}.log"));
    crate::checks::until("the first process has spoken", || async {
        Ok(std::fs::read_to_string(&log)?.contains("Mems_allowed_list"))
    })
    .await?;
    let log = carpel_conformance::parse_log(&std::fs::read_to_string(&log)?)?;
    let lines: Vec<_> = log.into_iter().map(|line| line.text).collect();
    assert_eq!(
        parse(&lines.join("\n")),
        other,
        "{name}: exec is as the first process"
    );
    Ok(other)
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_as_asked_for_root_and_for_others() -> Outcome {
    let node = node().await?;
    let ours = daemon(&node)?.bounding;
    let pod = Pod::run(&node, spec::logging_pod("sets", &node.folder("logs")?)).await?;
    let root = |held| Sets {
        permitted: held,
        effective: held,
        bounding: held,
        ..Sets::default()
    };
    let user = |held, ambient| Sets {
        inheritable: ambient,
        permitted: ambient,
        effective: ambient,
        bounding: held,
        ambient,
    };
    let bind = &["CAP_NET_BIND_SERVICE"][..];
    let none = &[][..];
    let cases = [
        ("root", 0, request(none, none, none), root(USUAL & ours)),
        (
            "user",
            1000,
            request(none, none, none),
            user(USUAL & ours, 0),
        ),
        ("all", 0, request(&["ALL"], none, none), root(ours)),
        (
            "all-but",
            0,
            request(&["ALL"], &["net_raw"], none),
            root(ours & !NET_RAW),
        ),
        ("nothing", 0, request(none, &["ALL"], none), root(0)),
        ("only", 0, request(&["CHOWN"], &["ALL"], none), root(CHOWN)),
        (
            "ambient",
            1000,
            request(none, &["ALL"], bind),
            user(NET_BIND_SERVICE, NET_BIND_SERVICE),
        ),
        (
            "ambient-all",
            1000,
            request(bind, &["ALL"], &["ALL"]),
            user(NET_BIND_SERVICE, NET_BIND_SERVICE),
        ),
        (
            "not-after-drop",
            1000,
            request(none, bind, bind),
            user(USUAL & ours & !NET_BIND_SERVICE, 0),
        ),
    ];
    for (name, uid, capabilities, expected) in cases {
        let found = sets(&node, &pod, &config(name, uid, capabilities)).await?;
        assert_eq!(found, expected, "{name}");
    }
    let mut privileged = config("privileged", 0, request(none, &["ALL"], none));
    spec::security(&mut privileged).privileged = true;
    assert_eq!(sets(&node, &pod, &privileged).await?, root(ours));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambient_capability_works_for_a_user_and_is_gone_without() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::logging_pod("ambient", &node.folder("logs")?)).await?;
    // An owner that changes is what CHOWN is about.
    let chown = ["sh", "-c", "touch /tmp/mine && chown 7 /tmp/mine"];
    for (name, ambient, works) in [("with", &["CHOWN"][..], true), ("without", &[], false)] {
        let id = pod
            .start(&node, &config(name, 1000, request(&[], &[], ambient)))
            .await?;
        let done = node.cri().exec(&id, &chown, 30).await?;
        assert_eq!(done.exit_code == 0, works, "{name}: {done:?}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runtime_lacks_or_nobody_knows_is_refused_by_name() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("lacking")).await?;
    let unknown = config("unknown", 0, request(&["NET_ADMNI"], &[], &[]));
    let result = node.cri().create(&pod.id, &unknown, &pod.config).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        &["NET_ADMNI", "capabilities.add"],
    );
    if daemon(&node)?.bounding & SYS_RESOURCE == 0 {
        let lacking = config("lacking", 0, request(&["SYS_RESOURCE"], &[], &[]));
        let result = node.cri().create(&pod.id, &lacking, &pod.config).await;
        assert_refused(result, Code::Unimplemented, &["CAP_SYS_RESOURCE"]);
    } else {
        eprintln!("skipped: the daemon has every capability here");
    }
    node.finish().await
}
