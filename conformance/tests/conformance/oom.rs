//! Containers whose processes the kernel kills for want of memory.

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node};

const MIB: i64 = 1 << 20;
/// Needs more than any limit here.
const EATER: &str = "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null";

fn limited(script: &str) -> cri::ContainerConfig {
    let mut config = spec::shell("c", script);
    let limits = spec::resources(&mut config);
    limits.memory_limit_in_bytes = 16 * MIB;
    limits.memory_swap_limit_in_bytes = 16 * MIB;
    config
}

async fn end(
    node: &Node,
    pod: &Pod,
    config: &cri::ContainerConfig,
) -> anyhow::Result<(i32, String)> {
    let id = pod.start(node, config).await?;
    let status = node.cri().wait_exit(&id).await?;
    node.cri().remove(&id).await?;
    Ok((status.exit_code, status.reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_or_its_child_is_told_as_the_cause() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom")).await?;
    let killed = (137, "OOMKilled".to_owned());
    let first = limited(&format!("exec {EATER}"));
    assert_eq!(end(&node, &pod, &first).await?, killed);
    // The shell waits for its child and ends with the child's code.
    let child = limited(&format!("{EATER}; exit $?"));
    assert_eq!(end(&node, &pod, &child).await?, killed);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_its_work_all_the_same_is_completed() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom")).await?;
    let goes_on = limited(&format!("{EATER}; exit 0"));
    let completed = (0, "Completed".to_owned());
    assert_eq!(end(&node, &pod, &goes_on).await?, completed);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_end_is_told_as_want_of_memory() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom")).await?;
    assert_eq!(
        end(&node, &pod, &limited("exit 3")).await?,
        (3, "Error".into())
    );
    assert_eq!(
        end(&node, &pod, &limited("exit 0")).await?,
        (0, "Completed".into())
    );
    assert_eq!(
        end(&node, &pod, &limited("kill -9 $$")).await?,
        (137, "Error".into())
    );
    let id = pod.start(&node, &limited("sleep 1000")).await?;
    node.cri().stop(&id, 0).await?;
    let status = node.cri().container(&id).await?;
    assert_eq!((status.exit_code, &*status.reason), (137, "Error"));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_limit_is_told_of_the_container_that_died_of_it() -> Outcome {
    let node = node().await?;
    let dirs = node.cgroup_make("kubelets-pod")?;
    if dirs.iter().any(|dir| dir.join("memory.max").exists()) {
        node.cgroup_set("kubelets-pod", "memory.max", "25000000")?;
    } else {
        node.cgroup_set("kubelets-pod", "memory.limit_in_bytes", "25000000")?;
    }
    let mut config = spec::pod("oom");
    config.linux.get_or_insert_default().cgroup_parent = format!("{}/kubelets-pod", node.cgroup());
    let pod = Pod::run(&node, config).await?;
    let other = pod.start(&node, &spec::sleeper("other")).await?;
    let mut eater = spec::shell("eater", &format!("exec {EATER}"));
    // It shall be the one that the kernel picks.
    spec::resources(&mut eater).oom_score_adj = 1000;
    assert_eq!(end(&node, &pod, &eater).await?, (137, "OOMKilled".into()));

    assert_eq!(
        node.cri().container(&other).await?.state(),
        cri::ContainerState::ContainerRunning
    );
    node.cri().stop(&other, 10).await?;
    let status = node.cri().container(&other).await?;
    assert_eq!((status.exit_code, &*status.reason), (0, "Completed"));
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    node.cgroup_remove(&dirs)?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_is_known_after_a_restart_of_the_daemon() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("oom")).await?;
    let dir = node.folder("go")?;
    let mut config = limited(&format!(
        "while [ ! -e /go/now ]; do sleep 0.05; done; exec {EATER}"
    ));
    config.mounts.push(cri::Mount {
        container_path: "/go".into(),
        host_path: dir.display().to_string(),
        ..Default::default()
    });
    let id = pod.start(&node, &config).await?;
    node.kill()?;
    std::fs::write(dir.join("now"), "")?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    node.restart().await?;
    let status = node.cri().wait_exit(&id).await?;
    assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"));
    node.finish().await
}
