//! UpdateContainerResources and UpdatePodSandboxResources.

use std::fs;

use carpel_conformance::{Node, spec};
use carpel_proto::cri as newer;
use carpel_proto::cri::runtime_service_client::RuntimeServiceClient;
use futures_util::future::join_all;
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

use crate::checks::{Outcome, Pod, assert_refused, node, until};

const MIB: i64 = 1 << 20;

fn resources(
    change: impl FnOnce(&mut cri::LinuxContainerResources),
) -> cri::LinuxContainerResources {
    let mut resources = cri::LinuxContainerResources::default();
    change(&mut resources);
    resources
}

fn pod_resources(
    change: impl FnOnce(&mut newer::LinuxContainerResources),
) -> Option<newer::LinuxContainerResources> {
    let mut resources = newer::LinuxContainerResources::default();
    change(&mut resources);
    Some(resources)
}

async fn update_pod(
    node: &Node,
    id: &str,
    overhead: Option<newer::LinuxContainerResources>,
    resources: Option<newer::LinuxContainerResources>,
) -> Result<(), Status> {
    let request = newer::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.to_owned(),
        overhead,
        resources,
    };
    let mut runtime = RuntimeServiceClient::new(node.cri().channel());
    let updated = runtime.update_pod_sandbox_resources(request).await;
    updated.map(drop)
}

/// The files of one container's limits, in the words of this host's cgroups.
struct Limits<'a> {
    node: &'a Node,
    group: String,
}

impl<'a> Limits<'a> {
    fn new(node: &'a Node, pod: &Pod, container: &str) -> Self {
        let group = format!("{}/{container}", pod.id);
        Self { node, group }
    }

    fn is_v2(&self) -> bool {
        self.node.cgroup_text(&self.group, "memory.max").is_ok()
    }

    fn read(&self, v1: &str, v2: &str) -> anyhow::Result<String> {
        let name = if self.is_v2() { v2 } else { v1 };
        self.node.cgroup_text(&self.group, name)
    }

    fn memory(&self) -> anyhow::Result<i64> {
        Ok(self.read("memory.limit_in_bytes", "memory.max")?.parse()?)
    }

    /// Shares, or the weight that they became.
    fn shares(&self) -> anyhow::Result<u64> {
        Ok(self.read("cpu.shares", "cpu.weight")?.parse()?)
    }

    fn expected_shares(&self, shares: u64) -> u64 {
        if self.is_v2() {
            1 + (shares - 2) * 9999 / 262_142
        } else {
            shares
        }
    }

    /// oom_score_adj of each process.
    fn scores(&self) -> anyhow::Result<Vec<String>> {
        let pids = self.node.cgroup_text(&self.group, "cgroup.procs")?;
        let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        let scores = pids.lines().map(|pid| Ok(score(pid)?.trim().to_owned()));
        scores.collect()
    }

    /// Quota and period.
    fn cpu(&self) -> anyhow::Result<String> {
        if self.is_v2() {
            return self.node.cgroup_text(&self.group, "cpu.max");
        }
        let quota = self.node.cgroup_text(&self.group, "cpu.cfs_quota_us")?;
        let period = self.node.cgroup_text(&self.group, "cpu.cfs_period_us")?;
        Ok(format!("{quota} {period}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_is_changed_and_the_others_stay() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let mut config = spec::sleeper("c");
    *spec::resources(&mut config) = resources(|r| {
        r.memory_limit_in_bytes = 64 * MIB;
        r.cpu_shares = 512;
        r.cpu_quota = 20_000;
        r.cpu_period = 100_000;
        r.oom_score_adj = 300;
    });
    let id = pod.start(&node, &config).await?;
    let limits = Limits::new(&node, &pod, &id);
    let update = async |change: fn(&mut cri::LinuxContainerResources)| {
        node.cri().update(&id, resources(change)).await
    };

    // Up beyond memory and swap together, and down again.
    update(|r| r.memory_limit_in_bytes = 96 * MIB).await?;
    assert_eq!(limits.memory()?, 96 * MIB);
    update(|r| r.memory_limit_in_bytes = 48 * MIB).await?;
    assert_eq!(limits.memory()?, 48 * MIB);
    let swap = limits.read("memory.memsw.limit_in_bytes", "memory.swap.max");
    if let Ok(swap) = swap {
        assert!(
            [(48 * MIB).to_string(), "0".into()].contains(&swap),
            "{swap}"
        );
    }
    update(|r| r.memory_swap_limit_in_bytes = 80 * MIB).await?;
    assert_eq!(limits.memory()?, 48 * MIB);
    assert_eq!(limits.cpu()?, "20000 100000");
    update(|r| r.cpu_quota = 30_000).await?;
    assert_eq!(limits.cpu()?, "30000 100000");
    update(|r| r.cpu_period = 50_000).await?;
    assert_eq!(limits.cpu()?, "30000 50000");
    update(|r| (r.cpu_quota, r.cpu_period) = (10_000, 200_000)).await?;
    assert_eq!(limits.cpu()?, "10000 200000");
    assert_eq!(limits.shares()?, limits.expected_shares(512));
    update(|r| r.cpu_shares = 2048).await?;
    assert_eq!(limits.shares()?, limits.expected_shares(2048));
    update(|r| r.oom_score_adj = 700).await?;
    assert_eq!(limits.scores()?, ["700", "700"]);
    let score = ["cat", "/proc/self/oom_score_adj"];
    assert_eq!(node.cri().output(&id, &score).await?, "700\n");

    let inside = if limits.is_v2() {
        "/sys/fs/cgroup/memory.max"
    } else {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    };
    let inside = node.cri().output(&id, &["cat", inside]).await?;
    assert_eq!(inside.trim().parse::<i64>()?, 48 * MIB);
    let expected = resources(|r| {
        r.memory_limit_in_bytes = 48 * MIB;
        r.memory_swap_limit_in_bytes = 80 * MIB;
        (r.cpu_quota, r.cpu_period, r.cpu_shares) = (10_000, 200_000, 2048);
        r.oom_score_adj = 700;
    });
    assert_eq!(node.cri().resources(&id).await?, expected);
    update(|_| {}).await?;
    assert_eq!(node.cri().resources(&id).await?, expected);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_limit_of_a_kind_holds_for_all_that_runs() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let id = pod
        .start(&node, &spec::shell("c", "sleep 1000 & sleep 1000 & wait"))
        .await?;
    let limits = Limits::new(&node, &pod, &id);
    let before = node.cgroup_text(&limits.group, "cgroup.procs")?;
    node.cri()
        .update(
            &id,
            resources(|r| {
                r.cpu_quota = 40_000;
                r.cpuset_cpus = "0".into();
            }),
        )
        .await?;
    assert_eq!(limits.cpu()?, "40000 100000");
    assert_eq!(node.cgroup_text(&limits.group, "cpuset.cpus")?, "0");
    for pid in before.lines() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        assert!(
            limits.is_v2() || groups.contains(&format!(":cpu:{}/{}", node.cgroup(), limits.group)),
            "{groups}"
        );
    }
    // A command that comes later is in it too; runc puts it only into the hierarchies
    // that it knew when it created the container.
    let said = node
        .cri()
        .output(&id, &["grep", "Cpus_allowed_list", "/proc/self/status"])
        .await?;
    let limited = said == "Cpus_allowed_list:\t0\n";
    let native = matches!(node.handler(), "" | "native");
    assert_eq!(limited, native || limits.is_v2(), "{said}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_in_its_middle_changes_nothing() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let mut config = spec::shell("c", "head -c 20000000 /dev/zero > /dev/shm/x; sleep 1000");
    let old = resources(|r| {
        r.memory_limit_in_bytes = 200 * MIB;
        r.cpu_shares = 512;
    });
    *spec::resources(&mut config) = old.clone();
    let id = pod.start(&node, &config).await?;
    let limits = Limits::new(&node, &pod, &id);
    let unchanged = async || -> Outcome {
        assert_eq!(limits.shares()?, limits.expected_shares(512));
        assert_eq!(limits.memory()?, 200 * MIB);
        assert_eq!(node.cri().resources(&id).await?, old);
        Ok(())
    };
    // The kernel takes the shares and refuses the period, of 1 µs.
    let impossible = resources(|r| {
        (r.cpu_shares, r.cpu_period) = (2048, 1);
        r.memory_limit_in_bytes = 300 * MIB;
    });
    let refused = node.cri().update(&id, impossible).await;
    assert_refused(refused, Code::InvalidArgument, &["cpu.", "\"1\""]);
    unchanged().await?;

    let no_such_cpu = resources(|r| {
        r.cpuset_cpus = "4000".into();
        r.cpu_shares = 2048;
    });
    let refused = node.cri().update(&id, no_such_cpu).await;
    assert_refused(refused, Code::InvalidArgument, &["cpuset.cpus", "4000"]);
    unchanged().await?;
    assert!(limits.is_v2() || node.cgroup_text(&limits.group, "cpuset.cpus").is_err());

    // What is in use is not killed for a limit.
    until("20 MB are in use", async || {
        let said = node.cri().output(&id, &["ls", "-l", "/dev/shm"]).await?;
        Ok(said.contains("20000000"))
    })
    .await?;
    let too_little = resources(|r| {
        r.cpu_shares = 2048;
        r.memory_limit_in_bytes = 4 * MIB;
    });
    let refused = node.cri().update(&id, too_little).await;
    assert_refused(refused, Code::FailedPrecondition, &["memory."]);
    unchanged().await?;
    assert_eq!(
        node.cri().container(&id).await?.state(),
        cri::ContainerState::ContainerRunning
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_updated_is_refused_by_name() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let some = || resources(|r| r.cpu_shares = 100);
    let update = async |change: fn(&mut cri::LinuxContainerResources)| {
        node.cri().update(&id, resources(change)).await
    };
    assert_refused(
        node.cri().update("none", some()).await,
        Code::NotFound,
        &["none"],
    );
    assert_refused(
        update_pod(&node, "none", None, None).await,
        Code::NotFound,
        &["none"],
    );
    let invalid = Code::InvalidArgument;
    assert_refused(
        update(|r| r.cpu_shares = -5).await,
        invalid,
        &["cpu_shares", "-5"],
    );
    assert_refused(
        update(|r| r.cpu_period = -6).await,
        invalid,
        &["cpu_period", "-6"],
    );
    assert_refused(
        update(|r| r.oom_score_adj = 1001).await,
        invalid,
        &["oom_score_adj", "1001"],
    );
    assert_refused(
        update(|r| r.cpuset_mems = "a".into()).await,
        invalid,
        &["cpuset_mems", "a"],
    );
    let crossed = update(|r| {
        r.memory_limit_in_bytes = 100 * MIB;
        r.memory_swap_limit_in_bytes = 50 * MIB;
    });
    assert_refused(crossed.await, invalid, &["memory_swap_limit_in_bytes"]);
    let page = |limit| cri::HugepageLimit {
        page_size: "3MB".into(),
        limit,
    };
    let huge = resources(|r| r.hugepage_limits = vec![page(1)]);
    assert_refused(
        node.cri().update(&id, huge).await,
        Code::Unimplemented,
        &["3MB"],
    );
    // The kubelet sends a zero for sizes that nobody has.
    let none = resources(|r| r.hugepage_limits = vec![page(0)]);
    node.cri().update(&id, none).await?;

    node.cri().stop(&id, 10).await?;
    assert_refused(
        node.cri().update(&id, some()).await,
        Code::FailedPrecondition,
        &[&id, "exited"],
    );
    node.cri().stop_pod(&pod.id).await?;
    assert_refused(
        update_pod(&node, &pod.id, None, None).await,
        Code::FailedPrecondition,
        &[&pod.id],
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn new_values_outlive_the_daemon_and_hold_from_before_the_start() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let id = node
        .cri()
        .create(&pod.id, &spec::sleeper("c"), &pod.config)
        .await?;
    let limits = Limits::new(&node, &pod, &id);
    let new = resources(|r| {
        r.memory_limit_in_bytes = 70 * MIB;
        r.cpu_shares = 300;
        r.oom_score_adj = 444;
    });
    node.cri().update(&id, new.clone()).await?;
    node.kill()?;
    node.restart().await?;
    assert_eq!(node.cri().resources(&id).await?, new);
    node.cri().start(&id).await?;
    assert_eq!(limits.memory()?, 70 * MIB);
    assert_eq!(limits.shares()?, limits.expected_shares(300));
    assert!(limits.scores()?.iter().all(|score| score == "444"));
    node.cri()
        .update(&id, resources(|r| r.cpu_shares = 400))
        .await?;
    node.kill()?;
    node.restart().await?;
    assert_eq!(node.cri().resources(&id).await?.cpu_shares, 400);
    assert_eq!(limits.shares()?, limits.expected_shares(400));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_at_once_leave_one_of_them_whole() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("update")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let limits = Limits::new(&node, &pod, &id);
    let updates = (1..=20).map(|number| {
        let new = resources(|r| {
            r.memory_limit_in_bytes = (100 + number) * MIB;
            r.cpu_shares = 1000 + number;
            r.cpu_quota = 10_000 + number * 1000;
        });
        let cri = node.cri();
        let id = &id;
        async move { cri.update(id, new).await }
    });
    for updated in join_all(updates).await {
        updated?;
    }
    let shown = node.cri().resources(&id).await?;
    let number = shown.cpu_shares - 1000;
    assert!((1..=20).contains(&number), "{shown:?}");
    assert_eq!(shown.memory_limit_in_bytes, (100 + number) * MIB);
    assert_eq!(limits.memory()?, (100 + number) * MIB);
    assert_eq!(
        limits.shares()?,
        limits.expected_shares(u64::try_from(1000 + number)?)
    );
    assert_eq!(limits.cpu()?, format!("{} 100000", 10_000 + number * 1000));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_cgroup_is_limited_and_the_kubelets_is_left_alone() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("update");
    config.linux.get_or_insert_default().resources =
        Some(resources(|r| r.memory_limit_in_bytes = 100 * MIB));
    config.linux.get_or_insert_default().overhead =
        Some(resources(|r| r.memory_limit_in_bytes = 10 * MIB));
    let pod = Pod::run(&node, config).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let own = Limits {
        node: &node,
        group: pod.id.clone(),
    };
    assert_eq!(own.memory()?, 110 * MIB);
    let more = pod_resources(|r| {
        r.memory_limit_in_bytes = 150 * MIB;
        r.cpu_quota = 50_000;
    });
    update_pod(&node, &pod.id, None, more).await?;
    assert_eq!(own.memory()?, 160 * MIB);
    assert_eq!(own.cpu()?, "50000 100000");
    // What runs, and what comes, is below the pod's limit.
    let later = pod.start(&node, &spec::sleeper("later")).await?;
    let place = format!("{}/{}", node.cgroup(), pod.id);
    for id in [&id, &later] {
        let group = format!("{}/{id}", pod.id);
        for pid in node.cgroup_text(&group, "cgroup.procs")?.lines() {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
            let line = groups
                .lines()
                .find(|line| line.contains(":cpu:") || line.starts_with("0::"));
            assert!(
                own.is_v2() || line.is_some_and(|line| line.contains(&place)),
                "{groups}"
            );
        }
    }
    node.kill()?;
    node.restart().await?;
    let again = pod_resources(|r| r.memory_limit_in_bytes = 20 * MIB);
    update_pod(&node, &pod.id, again, None).await?;
    assert_eq!(own.memory()?, 170 * MIB);

    let dirs = node.cgroup_make("kubelets-pod")?;
    let mut config = spec::pod("kubelets");
    config.linux.get_or_insert_default().cgroup_parent = format!("{}/kubelets-pod", node.cgroup());
    let kubelets = Pod::run(&node, config).await?;
    let theirs = Limits {
        node: &node,
        group: "kubelets-pod".into(),
    };
    let before = (
        theirs.read("memory.limit_in_bytes", "memory.max")?,
        theirs.cpu()?,
    );
    let some = pod_resources(|r| (r.memory_limit_in_bytes, r.cpu_quota) = (90 * MIB, 10_000));
    update_pod(&node, &kubelets.id, None, some).await?;
    let after = (
        theirs.read("memory.limit_in_bytes", "memory.max")?,
        theirs.cpu()?,
    );
    assert_eq!(before, after);
    // Nor is it swept away, though it is in the daemon's root and no pod's.
    let id = kubelets.start(&node, &spec::sleeper("c")).await?;
    node.kill()?;
    node.restart().await?;
    let status = node.cri().container(&id).await?;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    node.cri().stop_pod(&kubelets.id).await?;
    node.cri().remove_pod(&kubelets.id).await?;
    node.cgroup_remove(&dirs)?;
    node.finish().await
}
