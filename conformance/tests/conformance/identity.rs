//! Who a container's processes are and what they may do.

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, node};

/// Runs one command in a container changed by `change` and gives its output.
async fn inside(
    node: &Node,
    pod: &Pod,
    name: &str,
    command: &[&str],
    change: impl FnOnce(&mut cri::ContainerConfig),
) -> anyhow::Result<cri::ExecSyncResponse> {
    let mut config = spec::sleeper(name);
    change(&mut config);
    let id = pod.start(node, &config).await?;
    Ok(node.cri().exec(&id, command, 30).await?)
}

fn text(reply: &cri::ExecSyncResponse) -> String {
    String::from_utf8_lossy(&reply.stdout).into_owned()
}

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

#[tokio::test(flavor = "multi_thread")]
async fn user_group_and_further_groups_are_as_asked_and_exec_has_them_too() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("users")).await?;
    let reply = inside(&node, &pod, "numbers", &["id"], |config| {
        let security = spec::security(config);
        security.run_as_user = number(1001);
        security.run_as_group = number(1002);
        security.supplemental_groups = vec![5678, 1234];
    })
    .await?;
    let said = text(&reply);
    for part in ["uid=1001", "gid=1002", "1234", "5678"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let reply = inside(&node, &pod, "name", &["id", "-nu"], |config| {
        spec::security(config).run_as_username = "nobody".to_owned();
    })
    .await?;
    assert_eq!(text(&reply), "nobody\n");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_user_is_refused() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("group")).await?;
    let mut config = spec::sleeper("c");
    spec::security(&mut config).run_as_group = number(1002);
    let result = node.cri().create(&pod.id, &config, &pod.config).await;
    assert_refused(result, tonic::Code::InvalidArgument, &["run_as_group"]);
    assert!(node.cri().list_containers(None).await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_the_default_set_with_what_was_changed() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("capabilities")).await?;
    let command = ["sh", "-c", "grep CapBnd /proc/self/status | cut -f2"];
    let change = |add: &'static [&'static str], drop: &'static [&'static str]| {
        move |config: &mut cri::ContainerConfig| {
            let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
            spec::security(config).capabilities = Some(cri::Capability {
                add_capabilities: words(add),
                drop_capabilities: words(drop),
                ..Default::default()
            });
        }
    };
    let mut bits = Vec::new();
    for (name, add, drop) in [
        ("default", &[][..], &[][..]),
        ("none", &[], &["ALL"]),
        ("less", &[], &["NET_RAW"]),
        ("more", &["CAP_NET_ADMIN"], &[]),
    ] {
        let reply = inside(&node, &pod, name, &command, change(add, drop)).await?;
        bits.push(u64::from_str_radix(text(&reply).trim(), 16)?);
    }
    let (net_admin, net_raw) = (1 << 12, 1 << 13);
    assert_eq!(bits[0] & (net_admin | net_raw), net_raw);
    assert_eq!(bits[1], 0);
    assert_eq!(bits[2], bits[0] & !net_raw);
    assert_eq!(bits[3], bits[0] | net_admin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn seccomp_is_off_by_default_and_on_when_asked_for() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("seccomp")).await?;
    let command = ["sh", "-c", "grep Seccomp: /proc/self/status | cut -f2"];
    let profile = |kind: cri::security_profile::ProfileType| {
        move |config: &mut cri::ContainerConfig| {
            spec::security(config).seccomp = Some(cri::SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: String::new(),
            });
        }
    };
    let none = inside(&node, &pod, "absent", &command, |_| {}).await?;
    assert_eq!(text(&none), "0\n");
    let unconfined = profile(cri::security_profile::ProfileType::Unconfined);
    let reply = inside(&node, &pod, "unconfined", &command, unconfined).await?;
    assert_eq!(text(&reply), "0\n");
    let default = profile(cri::security_profile::ProfileType::RuntimeDefault);
    let reply = inside(&node, &pod, "default", &command, default).await?;
    assert_eq!(text(&reply), "2\n");
    let default = profile(cri::security_profile::ProfileType::RuntimeDefault);
    let unshare = ["unshare", "-m", "true"];
    let reply = inside(&node, &pod, "refusal", &unshare, default).await?;
    assert_ne!(
        reply.exit_code, 0,
        "the default profile lets unshare through"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn setuid_programs_gain_nothing_where_that_was_asked_for() -> Outcome {
    let node = Node::with(&["registry.k8s.io/e2e-test-images/nonewprivs:1.3"]).await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("setuid", &logs)).await?;
    for (name, forbidden, uid) in [("gains", false, "0"), ("stays", true, "1000")] {
        let image = "registry.k8s.io/e2e-test-images/nonewprivs:1.3";
        let mut config = spec::container(name, image, &[]);
        let security = spec::security(&mut config);
        security.run_as_user = number(1000);
        security.no_new_privs = forbidden;
        let id = pod.start(&node, &config).await?;
        assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 0);
        let log = std::fs::read_to_string(logs.join(format!("{name}.log")))?;
        assert!(log.ends_with(&format!("Effective uid: {uid}\n")), "{log}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_containers_may_do_what_others_may_not() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("privileged");
    spec::pod_security(&mut config).privileged = true;
    let pod = Pod::run(&node, config).await?;
    let command = ["brctl", "addbr", "inside0"];
    let plain = inside(&node, &pod, "plain", &command, |_| {}).await?;
    assert_ne!(plain.exit_code, 0);
    let privileged = inside(&node, &pod, "privileged", &command, |config| {
        spec::security(config).privileged = true;
    })
    .await?;
    assert_eq!(
        privileged.exit_code,
        0,
        "{}",
        String::from_utf8_lossy(&privileged.stderr)
    );
    node.finish().await
}
