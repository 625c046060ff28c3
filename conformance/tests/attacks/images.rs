//! Configurations of images that are strange, and images that are nearly none.

use carpel_conformance::image::{Compression, ImageBuilder, Layer};
use carpel_conformance::spec;
use serde_json::{Value, json};
use tonic::Code;

use crate::site::{Outcome, Pod, assert_refused, busybox, end, logging_pod, node, pull};

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_24054_an_image_without_layers_is_an_empty_root() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("empty")).await?;
    let empty_layer = ImageBuilder::new().tar(vec![0; 1024], Compression::Gzip);
    let no_bytes = ImageBuilder::new().tar(Vec::new(), Compression::Gzip);
    for (name, image) in [
        ("config-only", ImageBuilder::new()),
        ("empty-layer", empty_layer),
        ("no-bytes", no_bytes),
    ] {
        let Ok(image) = pull(&node, name, image).await else {
            continue;
        };
        // No program of the host's is found where the image has none.
        for command in [&["/bin/sh"][..], &["sh"], &["/bin/busybox", "true"]] {
            let config = spec::container(name, &image, command);
            let result = pod.start(&node, &config).await;
            let codes = [
                Code::FailedPrecondition,
                Code::InvalidArgument,
                Code::Internal,
            ];
            assert_refused(result, &codes, &[command[0]]);
            for container in node.cri().list_containers(None).await? {
                node.cri().remove(&container.id).await?;
            }
        }
    }
    let found = node.cri().list_images().await?;
    assert!(found.len() > 1, "an image without layers is one");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_configurations_fail_their_container_and_no_other() -> Outcome {
    let node = node().await?;
    let pod = logging_pod(&node).await?;
    let many: Vec<String> = (0..200_000).map(|n| format!("V{n}=x")).collect();
    let cases: [(&str, Value); 12] = [
        ("Env", json!(["NOEQUALS", "=x", "PATH=/bin", "A\u{0}B=c"])),
        (
            "Env",
            json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "HOME=x\ny"]),
        ),
        ("Env", json!(many)),
        ("Entrypoint", json!(["/bin/sh\u{0}", "-c", "true"])),
        ("Entrypoint", json!([""])),
        ("Entrypoint", json!(["/proc/self/exe"])),
        ("WorkingDir", json!("../../../etc")),
        ("WorkingDir", json!("/a/../../../..")),
        ("WorkingDir", json!("/nul\u{0}")),
        ("StopSignal", json!("SIGNONE")),
        ("StopSignal", json!("99999999999")),
        ("User", json!("root\n0")),
    ];
    for (number, (key, value)) in cases.into_iter().enumerate() {
        let image = busybox()?.with(key, value);
        let name = format!("strange{number}");
        let Ok(image) = pull(&node, &name, image).await else {
            continue;
        };
        let config = spec::container(&name, &image, &[]);
        match pod.start(&node, &config).await {
            Ok(id) => drop(node.cri().wait_exit(&id).await?),
            Err(status) => assert_ne!(status.code(), Code::Unavailable, "{key}: {status}"),
        }
    }
    // What the client says goes before it.
    let image = busybox()?
        .with("Env", json!(["WHO=image", "PATH=/bin"]))
        .with("WorkingDir", json!("relative"))
        .layer(Layer::new().directory("w", 0o755));
    let image = pull(&node, "before", image).await?;
    let mut config = spec::container("before", &image, &["sh", "-c", "echo $WHO $PWD"]);
    config.working_dir = "/w".to_owned();
    config.envs = vec![k8s_cri::v1::KeyValue {
        key: "WHO".to_owned(),
        value: "client".to_owned(),
    }];
    assert_eq!(pod.output(&node, &config).await?, "client /w\n");
    end(node).await
}
