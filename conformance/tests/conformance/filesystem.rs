//! What a container finds under `/`.

use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, node};

fn bind(host: &std::path::Path, inside: &str, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: inside.to_owned(),
        host_path: host.display().to_string(),
        readonly,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_container_writes_no_other_sees() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("writes")).await?;
    let first = pod.start(&node, &spec::sleeper("first")).await?;
    let second = pod.start(&node, &spec::sleeper("second")).await?;
    node.cri()
        .output(
            &first,
            &["sh", "-c", "echo mine > /root/note; rm /bin/wget"],
        )
        .await?;
    assert_eq!(
        node.cri().output(&first, &["cat", "/root/note"]).await?,
        "mine\n"
    );
    assert_ne!(
        node.cri()
            .exec(&second, &["cat", "/root/note"], 30)
            .await?
            .exit_code,
        0
    );
    node.cri()
        .output(&second, &["test", "-e", "/bin/wget"])
        .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_the_host_appear_where_they_were_asked_for() -> Outcome {
    let node = node().await?;
    let data = node.folder("data")?;
    std::fs::write(data.join("file"), "from the host\n")?;
    let link = data.with_file_name("link");
    std::os::unix::fs::symlink(&data, &link)?;
    let single = data.join("file");

    let pod = Pod::run(&node, spec::pod("mounts")).await?;
    let mut config = spec::sleeper("c");
    config.mounts = vec![
        bind(&data, "/new/place", false),
        bind(&link, "/linked", true),
        bind(&single, "/etc/single", true),
    ];
    let id = pod.start(&node, &config).await?;
    for path in ["/new/place/file", "/linked/file", "/etc/single"] {
        assert_eq!(
            node.cri().output(&id, &["cat", path]).await?,
            "from the host\n"
        );
    }
    node.cri()
        .output(&id, &["sh", "-c", "echo back > /new/place/reply"])
        .await?;
    assert_eq!(std::fs::read_to_string(data.join("reply"))?, "back\n");
    let refused = node.cri().exec(&id, &["touch", "/linked/x"], 30).await?;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("Read-only file system"), "{message}");

    let mounts = node.cri().container(&id).await?.mounts;
    assert_eq!(mounts.len(), 3, "only what was asked for: {mounts:?}");
    let table = node.mounts()?;
    assert!(
        !table.iter().any(|mount| mount.contains("/new/place")),
        "{table:#?}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_cannot_be_written() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("readonly")).await?;
    let mut config = spec::sleeper("c");
    spec::security(&mut config).readonly_rootfs = true;
    let id = pod.start(&node, &config).await?;
    let refused = node.cri().exec(&id, &["touch", "test.go"], 30).await?;
    assert_eq!(refused.stderr, b"touch: test.go: Read-only file system\n");
    node.cri()
        .output(&id, &["sh", "-c", "echo x > /dev/shm/x"])
        .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_paths_are_closed_and_readonly_paths_cannot_be_written() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("paths")).await?;
    let mut config = spec::sleeper("c");
    let security = spec::security(&mut config);
    security.masked_paths = vec!["/bin/ls".to_owned(), "/var/lib".to_owned()];
    security.readonly_paths = vec!["/tmp".to_owned()];
    let id = pod.start(&node, &config).await?;
    let masked = node.cri().exec(&id, &["sh", "-c", "ls /"], 30).await?;
    assert_eq!(masked.stderr, b"sh: ls: Permission denied\n");
    let readonly = node.cri().exec(&id, &["touch", "/tmp/test"], 30).await?;
    assert_eq!(
        readonly.stderr,
        b"touch: /tmp/test: Read-only file system\n"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_the_usual_ones_and_those_asked_for() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("devices")).await?;
    let mut config = spec::sleeper("c");
    config.devices = vec![cri::Device {
        container_path: "/dev/my-zero".to_owned(),
        host_path: "/dev/zero".to_owned(),
        permissions: "r".to_owned(),
    }];
    let id = pod.start(&node, &config).await?;
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "my-zero",
    ] {
        node.cri()
            .output(&id, &["test", "-c", &format!("/dev/{device}")])
            .await?;
    }
    let read = ["sh", "-c", "head -c 3 /dev/my-zero | wc -c"];
    assert_eq!(node.cri().output(&id, &read).await?.trim(), "3");
    assert_ne!(
        node.cri()
            .exec(&id, &["test", "-e", "/dev/vda"], 30)
            .await?
            .exit_code,
        0
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_mount_source_is_refused_by_name() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("missing")).await?;
    let mut config = spec::sleeper("c");
    config.mounts = vec![bind(std::path::Path::new("/no/such/source"), "/x", false)];
    let result = node.cri().create(&pod.id, &config, &pod.config).await;
    assert_refused(result, tonic::Code::InvalidArgument, &["/no/such/source"]);
    assert!(node.cri().list_containers(None).await?.is_empty());
    node.finish().await
}
