//! `/proc`, `/sys` and `/dev` of a container: what an image or a volume puts there
//! leads nowhere, and nothing of the host is opened by it.

use carpel_conformance::image::Layer;
use carpel_conformance::spec;
use tonic::Code;

use crate::site::{
    Outcome, Pod, Target, armed, assert_refused, bind, busybox, end, grant, logging_pod, node, pull,
};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_31133_dev_null_as_a_link_does_not_open_masked_paths() -> Outcome {
    let node = node().await?;
    let before = std::fs::read_to_string(CORE_PATTERN)?;
    let layer = Layer::new()
        .entry(b'2', "dev/null", CORE_PATTERN, 0o777, &[])
        .file("secret", b"visible\n", 0o644);
    let image = pull(&node, "null", busybox()?.layer(layer)).await?;
    let pod = logging_pod(&node).await?;
    let script = "cat /secret /proc/interrupts; stat -c %t:%T /secret /proc/interrupts /dev/null";
    let mut config = spec::container("masked", &image, &["sh", "-c", script]);
    let security = spec::security(&mut config);
    security.masked_paths = vec!["/secret".to_owned(), "/proc/interrupts".to_owned()];
    assert_eq!(pod.output(&node, &config).await?, "1:3\n1:3\n1:3\n");
    assert_eq!(std::fs::read_to_string(CORE_PATTERN)?, before);
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_52881_a_cover_over_proc_gets_no_writes() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("covered")).await?;
    let cover = "mkdir /cover; mount -t tmpfs x /proc/self/attr 2>/dev/null; \
                 mount -t tmpfs x /proc && echo > /proc/oom_score_adj && exec sleep 1000";
    let mut config = spec::shell("coverer", cover);
    grant(&mut config, &["SYS_ADMIN"]);
    spec::resources(&mut config).oom_score_adj = 777;
    let id = pod.start(&node, &config).await?;
    let mut seen = String::new();
    for _ in 0..100 {
        seen = node.cri().output(&id, &["ls", "-A", "/proc"]).await?;
        if seen == "oom_score_adj\n" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Nothing of ours has been written beside what the container itself put there.
    assert_eq!(seen, "oom_score_adj\n");
    let script = "mount -t proc x /proc && cat /proc/self/oom_score_adj && umount /proc";
    let said = node.cri().output(&id, &["sh", "-c", script]).await?;
    assert_eq!(
        said, "777\n",
        "the value is the container's in spite of the cover"
    );
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_41579_system_directories_as_links_lead_nowhere() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = Pod::run(&node, spec::pod("links")).await?;
    let [deep, there] = target.ways();
    let mut started = 0;
    for (number, name) in ["dev", "proc", "sys", "etc", "dev/shm", "sys/fs"]
        .iter()
        .enumerate()
    {
        for (which, to) in ["/", "../../..", &deep, &there].iter().enumerate() {
            let layer = Layer::new().entry(b'2', name, to, 0o777, &[]);
            let name = format!("link-{number}-{which}");
            let image = pull(&node, &name, busybox()?.layer(layer)).await?;
            let mut config = spec::sleeper(&name);
            config.image = Some(spec::image(&image));
            // Refused, or made with everything inside.
            match pod.start(&node, &config).await {
                Ok(id) => {
                    started += 1;
                    node.cri().remove(&id).await?;
                }
                Err(status) => assert_ne!(status.code(), Code::Unavailable, "{name}: {status}"),
            }
            target.unharmed()?;
        }
    }
    assert!(started > 0, "an image with /etc as a link may well start");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2019_19921_a_volume_on_proc_is_refused() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = Pod::run(&node, spec::pod("volume")).await?;
    for place in [
        "/proc",
        "/proc/",
        "/proc/./",
        "//proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/1",
        "/proc/sys/kernel",
        "/proc/thread-self/attr/exec",
    ] {
        let mut config = spec::sleeper("c");
        config.mounts = vec![bind(&target.path, place)];
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["container_path"]);
    }
    // By way of a link in the image, too.
    let layer = Layer::new()
        .symlink("way", "/proc")
        .symlink("deep/way", "../proc/self/attr");
    let image = pull(&node, "volume", busybox()?.layer(layer)).await?;
    for (name, place) in [
        ("one", "/way"),
        ("two", "/deep/way"),
        ("three", "/way/self/attr"),
    ] {
        let mut config = spec::container(name, &image, &["true"]);
        config.mounts = vec![bind(&target.path, place)];
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &[place]);
        target.unharmed()?;
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn powercap_af_alg_and_io_uring_are_closed() -> Outcome {
    let node = node().await?;
    let image = pull(&node, "calls", busybox()?.layer(armed()?)).await?;
    let pod = logging_pod(&node).await?;
    let mut config = spec::container("calls", &image, &["/attack", "calls"]);
    spec::security(&mut config).seccomp = Some(k8s_cri::v1::SecurityProfile {
        profile_type: k8s_cri::v1::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    });
    let said = pod.output(&node, &config).await?;
    let expected = "io_uring_setup=1\nio_uring_enter=1\nio_uring_register=1\naf_alg=1\naf_inet=0\n";
    assert_eq!(said, expected);

    // Few machines have it, so it is asked for where the container's make-up is kept.
    let mut config = spec::sleeper("power");
    config.linux.get_or_insert_default().security_context = None;
    let id = pod.start(&node, &config).await?;
    let script = "ls -A /sys/devices/virtual/powercap 2>/dev/null";
    let seen = node.cri().exec(&id, &["sh", "-c", script], 10).await?;
    assert!(seen.stdout.is_empty(), "{seen:?}");
    let folder = node
        .root()
        .join(format!("state/pods/{}/containers/{id}", pod.id));
    let made = std::fs::read_to_string(folder.join("spec.json"))?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let masked = made["linux"]["maskedPaths"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        masked.contains(&"/sys/devices/virtual/powercap".into()),
        "{masked:?}"
    );
    end(node).await
}
