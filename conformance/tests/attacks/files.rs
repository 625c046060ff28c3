//! Files that we make or mount in a root filesystem: never through what an image or
//! a volume put in the way.

use carpel_conformance::image::Layer;
use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::site::{Outcome, Pod, Target, bind, busybox, end, logging_pod, node, pull, tree};

/// Every place where we make something, as a link out of the root filesystem.
fn trapped(way: &str) -> Layer {
    [
        "etc/hosts",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/mtab",
        ".dockerenv",
        "run",
    ]
    .iter()
    .fold(Layer::new(), |layer, place| {
        layer.entry(b'2', place, &format!("{way}/made"), 0o777, &[])
    })
    .entry(
        b'2',
        ".krun_config.json",
        &format!("{way}/victim"),
        0o777,
        &[],
    )
    .entry(b'2', "trap", way, 0o777, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_45310_nothing_is_made_on_the_host() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = Pod::run(&node, spec::pod("made")).await?;
    let data = node.folder("data")?;
    for (number, way) in target.ways().iter().enumerate() {
        let image = pull(
            &node,
            &format!("made-{number}"),
            busybox()?.layer(trapped(way)),
        )
        .await?;
        for place in ["/trap/new/file", "/trap/sub/deeper", "/run/x", "/etc/mtab"] {
            let name = format!("c{number}{}", place.replace('/', "-"));
            let mut config = spec::sleeper(&name);
            config.image = Some(spec::image(&image));
            config.mounts = vec![bind(&data, place)];
            config.working_dir = "/trap/cwd".to_owned();
            pod.start(&node, &config).await.ok();
            target.unharmed()?;
        }
    }
    assert_eq!(tree(&data)?.len(), 1, "the volume stays empty");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_24965_no_file_of_ours_is_written_through_a_link_of_the_image() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = logging_pod(&node).await?;
    for (number, way) in target.ways().iter().enumerate() {
        let layer = trapped(way).entry(b'2', "etc/hosts", &format!("{way}/victim"), 0o777, &[]);
        let image = pull(&node, &format!("ours-{number}"), busybox()?.layer(layer)).await?;
        let script = "cat /etc/hosts; echo mine >> /etc/hosts; echo mine >> /etc/resolv.conf";
        let config = spec::container(&format!("c{number}"), &image, &["sh", "-c", script]);
        let said = pod.output(&node, &config).await?;
        assert!(said.contains("localhost"), "{said}");
        target.unharmed()?;
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_5154_etc_mtab_as_a_link_makes_nothing_on_the_host() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = Pod::run(&node, spec::pod("mtab")).await?;
    for (number, way) in target.ways().iter().enumerate() {
        // The folder itself, and the file in it.
        for (which, layer) in [
            Layer::new().entry(b'2', "etc", way, 0o777, &[]),
            Layer::new().entry(b'2', "etc/mtab", &format!("{way}/mtab"), 0o777, &[]),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("mtab-{number}-{which}");
            let image = pull(&node, &name, busybox()?.layer(layer)).await?;
            let mut config = spec::sleeper(&name);
            config.image = Some(spec::image(&image));
            pod.start(&node, &config).await.ok();
            target.unharmed()?;
        }
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_21334_environments_of_one_image_do_not_mix() -> Outcome {
    let node = node().await?;
    let image = busybox()?.with("Env", serde_json::json!(["PATH=/bin", "SHARED=image"]));
    let image = pull(&node, "environment", image).await?;
    let pod = Pod::run(&node, spec::pod("environment")).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (cri, pod, config) = (node.cri().clone(), pod.id.clone(), pod.config.clone());
        let mut wanted = spec::sleeper(&format!("c{number}"));
        wanted.image = Some(spec::image(&image));
        wanted.envs = vec![cri::KeyValue {
            key: format!("OWN{number}"),
            value: format!("secret-{number}"),
        }];
        tasks.spawn(async move {
            let id = cri.run(&pod, &wanted, &config).await?;
            Ok::<_, tonic::Status>((number, cri.output(&id, &["env"]).await?))
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (number, text) = done??;
        let own: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("OWN"))
            .collect();
        assert_eq!(own, [format!("OWN{number}=secret-{number}")]);
        assert!(text.contains("SHARED=image"), "{text}");
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_23648_volumes_of_an_image_copy_nothing_of_the_host() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let pod = logging_pod(&node).await?;
    let text = target.text();
    let mut cases = 0;
    for (number, way) in target.ways().iter().enumerate() {
        for (which, place) in [
            format!("/../../../../../../..{text}"),
            format!("/inner/../../../../../../../..{text}"),
            "/way".to_owned(),
            "/way/sub".to_owned(),
            "/deep/way/new".to_owned(),
            "/proc/self/cwd".to_owned(),
            "/".to_owned(),
            "..".to_owned(),
        ]
        .iter()
        .enumerate()
        {
            let layer = Layer::new()
                .entry(b'2', "way", way, 0o777, &[])
                .directory("deep", 0o755)
                .entry(b'2', "deep/way", way, 0o777, &[]);
            let volumes = serde_json::json!({ place.as_str(): {} });
            let name = format!("volume-{number}-{which}");
            let image = busybox()?.layer(layer).with("Volumes", volumes);
            let image = pull(&node, &name, image).await?;
            let script =
                format!("cat /way/victim {text}/victim /proc/self/cwd/victim; echo > {text}/x");
            let config = spec::container(&name, &image, &["sh", "-c", &script]);
            // Refused, or a volume of what the image itself has there.
            if let Ok(said) = pod.output(&node, &config).await {
                assert!(!said.contains("of the host"), "{place}: {said}");
                cases += 1;
            }
            target.unharmed()?;
        }
    }
    assert!(cases > 0, "not one container came to be");
    end(node).await
}
