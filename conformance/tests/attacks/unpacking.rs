//! Layers that want out of their folder, or to be more than a layer.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carpel_conformance::image::{Compression, ImageBuilder, Layer};
use carpel_conformance::spec::BUSYBOX;
use carpel_conformance::{Node, Settings, spec};
use tonic::Code;

use crate::site::{
    Growth, Outcome, Pod, Target, assert_refused, busybox, daemon, end, logging_pod, node, pull,
};

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_32760_no_mode_or_owner_is_set_through_a_link() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let inner = target.text().trim_start_matches('/').to_owned();
    for (number, way) in target.ways().iter().enumerate() {
        let layers = [
            // An entry under the link, with and without something inside to hit.
            Layer::new().entry(b'2', "way", way, 0o777, &[]).entry(
                b'0',
                "way/victim",
                "",
                0o6777,
                b"hit",
            ),
            Layer::new()
                .directory(&inner, 0o755)
                .entry(b'2', "way", way, 0o777, &[])
                .entry(b'0', "way/victim", "", 0o6777, b"hit")
                .entry(b'5', "way/sub", "", 0o777, &[]),
            // An entry in the link's own place, and one that is a hard link to it.
            Layer::new()
                .entry(b'2', "file", &format!("{way}/victim"), 0o777, &[])
                .entry(b'0', "file", "", 0o6777, b"hit"),
            Layer::new().entry(b'2', "way", way, 0o777, &[]).entry(
                b'1',
                "linked",
                "way/victim",
                0o6777,
                &[],
            ),
            Layer::new()
                .entry(b'2', "file", &format!("{way}/victim"), 0o777, &[])
                .entry(b'1', "linked", "file", 0o6777, &[])
                .entry(b'0', "linked", "", 0o6777, b"hit"),
            Layer::new()
                .entry(b'2', "way", way, 0o777, &[])
                .entry(b'5', "way", "", 0o777, &[]),
        ];
        for (which, layer) in layers.into_iter().enumerate() {
            // Refused or unpacked inside: both are safe.
            pull(
                &node,
                &format!("mode-{number}-{which}"),
                busybox()?.layer(layer),
            )
            .await
            .ok();
            target.unharmed()?;
        }
        // One layer makes the link, the next one goes through it.
        let below = Layer::new().entry(b'2', "way", way, 0o777, &[]);
        let above = Layer::new()
            .entry(b'0', "way/victim", "", 0o6777, b"hit")
            .entry(b'0', "way/.wh.victim", "", 0o644, &[])
            .entry(b'0', "way/.wh..wh..opq", "", 0o644, &[]);
        let image = busybox()?.layer(below).layer(above);
        pull(&node, &format!("layers-{number}"), image).await.ok();
        target.unharmed()?;
    }
    end(node).await
}

/// Exchanges, in every layer that is being unpacked, a directory with a link out.
fn swap_layers(tmp: &std::path::Path, out: &std::path::Path, stop: &AtomicBool) -> usize {
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        for entry in std::fs::read_dir(tmp).into_iter().flatten().flatten() {
            let places = [entry.path().join("fs/d"), entry.path().join("d")];
            let found: Option<&PathBuf> = places.iter().find(|place| place.is_dir());
            let Some(place) = found else { continue };
            let aside = place.with_file_name("aside");
            if std::fs::rename(place, &aside).is_ok() {
                std::os::unix::fs::symlink(out, place).ok();
                std::thread::sleep(Duration::from_micros(200));
                std::fs::remove_file(place).ok();
                std::fs::rename(&aside, place).ok();
                swaps += 1;
            }
        }
    }
    swaps
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_47290_swapping_directories_while_a_layer_is_unpacked_leads_nowhere() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, out) = (Arc::clone(&stop), target.path.clone());
        let tmp = node.root().join("images/tmp");
        anyhow::ensure!(
            tmp.is_dir(),
            "{} is where layers are unpacked",
            tmp.display()
        );
        std::thread::spawn(move || swap_layers(&tmp, &out, &stop))
    };
    for round in 0..6 {
        let mut layer = Layer::new().directory("d", 0o755);
        for number in 0..1500 {
            let name = format!("d/{round}-{number}");
            layer = if number % 3 == 0 {
                layer.entry(b'5', &name, "", 0o777, &[])
            } else {
                layer.entry(b'0', &name, "", 0o6777, b"hit")
            };
            // Another parent between, so that each is looked up anew.
            layer = layer.entry(b'0', &format!("f{number}"), "", 0o644, &[]);
        }
        pull(&node, &format!("race{round}"), busybox()?.layer(layer))
            .await
            .ok();
        target.unharmed()?;
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().expect("the swapper does not panic");
    assert!(swaps > 0, "nothing was ever swapped");
    // What was swapped may have kept a broken layer from being cleared away at once.
    node.kill()?;
    node.restart().await?;
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_3727_names_of_entries_do_not_climb() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let text = target.text();
    let long = "n".repeat(4097);
    let part = "n".repeat(256);
    for name in [
        "../../../../../../escaped",
        "a/../../escaped",
        "..",
        "a/..",
        "/../escaped",
        "./../escaped",
        &format!("{text}/absolute"),
        &format!("//{text}/absolute"),
        "nul\0name",
        &long,
        &part,
        "",
        ".wh...",
        ".wh.",
        "a/.wh..",
    ] {
        let layer = Layer::new()
            .pax(&[("path", name.as_bytes())])
            .entry(b'0', "x", "", 0o644, b"x");
        // An empty name in an extension is none: the header's own counts.
        let result = pull(&node, "climb", busybox()?.layer(layer)).await;
        assert!(result.is_err() || name.is_empty(), "{name:.40}");
        if let Err(status) = result {
            assert_eq!(
                status.code(),
                Code::FailedPrecondition,
                "{name:.40}: {status}"
            );
            assert!(status.message().len() < 2000, "{}", status.message().len());
        }
        target.unharmed()?;
    }
    // The root itself as something else, and hard links out.
    for (kind, name, link) in [
        (b'2', ".", "/etc"),
        (b'0', "./", ""),
        (b'1', "stolen", "../../../../../../etc/passwd"),
        (b'1', "stolen", "/etc/shadow"),
        (b'1', "stolen", &format!("{text}/victim")),
        (b'1', "stolen", "."),
        (b'1', ".", "bin/sh"),
    ] {
        let layer = Layer::new().entry(kind, name, link, 0o755, &[]);
        let only = ImageBuilder::new().layer(layer);
        let result = pull(&node, "links", only).await;
        assert_refused(result, &[Code::FailedPrecondition], &["entry"]);
        target.unharmed()?;
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2023_25153_and_2025_58183_promised_sizes_cost_nothing() -> Outcome {
    let node = node().await?;
    let growth = Growth::of(daemon(&node)?)?;
    let used = |node: &Node| -> anyhow::Result<u64> {
        let text = node.run("du", &["-sk", &node.root().display().to_string()])?;
        Ok(text.split_whitespace().next().unwrap_or("0").parse()?)
    };
    let before = used(&node)?;
    let ten = 10 << 30;
    let sparse: [&[(&str, &[u8])]; 4] = [
        &[
            ("GNU.sparse.numblocks", b"1000000000"),
            ("GNU.sparse.size", b"1000000000000"),
        ],
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")],
        &[
            ("GNU.sparse.map", b"0,1,2,3"),
            ("GNU.sparse.realsize", b"9999999999999"),
        ],
        &[("size", b"18446744073709551615")],
    ];
    let mut layers: Vec<Layer> = [b'0', b'x', b'g', b'L', b'K', b'S', b'5', b'2', b'V', b'7']
        .iter()
        .map(|kind| Layer::new().promise(*kind, "promised", ten))
        .collect();
    layers
        .extend(sparse.map(|records| Layer::new().pax(records).entry(b'0', "x", "", 0o644, b"x")));
    layers.push(Layer::new().promise(b'0', "promised", u64::MAX));
    for (number, layer) in layers.into_iter().enumerate() {
        let result = pull(&node, &format!("promise{number}"), busybox()?.layer(layer)).await;
        // A directory or a link has no content, whatever its header says.
        assert!(
            result.is_err() || matches!(number, 6 | 7),
            "case {number}: {result:?}"
        );
    }
    let grown = growth.kib()?;
    assert!(grown < 32 << 10, "{grown} KiB");
    let after = used(&node)?;
    assert!(
        after < before + (32 << 10),
        "{before} KiB, then {after} KiB on disk"
    );
    end(node).await
}

/// A zstd frame that asks for a window of 2 GiB, with one byte in it.
fn wide_frame() -> Vec<u8> {
    let exponent = 31 - 10;
    vec![
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x00,
        exponent << 3,
        0x09,
        0x00,
        0x00,
        b'x',
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn decompression_bombs_are_stopped() -> Outcome {
    let caps = "\n[images]\nmax_layer_bytes = 33554432\nmax_layer_entries = 2000\n";
    let node = Node::start(Settings::default().images(&[BUSYBOX]).more(caps)).await?;
    let growth = Growth::of(daemon(&node)?)?;
    let large = Layer::new().file("zeros", &vec![0; 40 << 20], 0o644);
    let crowd = (0..2001).fold(Layer::new(), |layer, number| {
        layer.entry(b'0', &number.to_string(), "", 0o644, &[])
    });
    for (name, layer) in [("large", large), ("crowd", crowd)] {
        let result = pull(&node, name, busybox()?.layer(layer)).await;
        assert_refused(result, &[Code::ResourceExhausted], &[]);
    }
    let zeros = Layer::new()
        .file("zeros", &vec![0; 16 << 20], 0o644)
        .finish();
    let nested = zstd::encode_all(zstd::encode_all(zeros.as_slice(), 19)?.as_slice(), 1)?;
    for (name, blob) in [("window", wide_frame()), ("nested", nested)] {
        // Packed once more by no one: the bytes tell what they are.
        let image = ImageBuilder::new().tar(blob, Compression::None);
        let result = pull(&node, name, image).await;
        assert_refused(
            result,
            &[Code::FailedPrecondition, Code::ResourceExhausted],
            &[],
        );
    }
    let grown = growth.kib()?;
    assert!(grown < 48 << 10, "{grown} KiB");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_setuid_programs_and_attributes_are_no_more_than_they_may_be() -> Outcome {
    let node = node().await?;
    for (number, layer) in [
        Layer::new().device("disk", 254, 0),
        Layer::new().device("null", 1, 3),
        Layer::new().device("hole", 0, 0),
        Layer::new().entry(b'4', "block", "", 0o666, &[]),
        Layer::new()
            .pax(&[("SCHILY.xattr.user.overlay.redirect", b"/etc")])
            .entry(b'5', "d", "", 0o755, &[]),
        Layer::new()
            .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")])
            .entry(b'5', "d", "", 0o755, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let result = pull(&node, &format!("device{number}"), busybox()?.layer(layer)).await;
        assert_refused(result, &[Code::FailedPrecondition], &["entry"]);
    }
    let capability: &[u8] = &[
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            (
                "SCHILY.xattr.security.selinux",
                b"system_u:object_r:shadow_t:s0",
            ),
            ("SCHILY.xattr.security.ima", b"x"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.kept", b"y"),
        ])
        .entry(b'5', "etc", "", 0o755, &[]);
    let image = pull(&node, "attributes", busybox()?.layer(layer)).await?;
    let pod = logging_pod(&node).await?;
    // Nothing hides: what lies below in the image is still there.
    let config = spec::container("c", &image, &["sh", "-c", "ls /etc/passwd"]);
    assert_eq!(pod.output(&node, &config).await?, "/etc/passwd\n");
    let layers = node.root().join("images/layers");
    for entry in std::fs::read_dir(layers)? {
        let text = node.run(
            "getfattr",
            &[
                "-d",
                "-m",
                "-",
                &format!("{}/fs/etc", entry?.path().display()),
            ],
        );
        let text = text.unwrap_or_default();
        assert!(
            !text.contains("overlay") && !text.contains("ima") && !text.contains("shadow_t"),
            "{text}"
        );
    }
    setuid_stays_with_its_owner(&node, &pod).await?;
    end(node).await
}

/// A program with the set-user-id bit gains what its image says, unless that is
/// forbidden, and its own bits are those of the layer.
async fn setuid_stays_with_its_owner(node: &Node, pod: &Pod) -> Outcome {
    let program = std::fs::read("/bin/busybox")?;
    let layer = Layer::new().file("su/busybox", &program, 0o4755);
    let image = pull(node, "gain", busybox()?.layer(layer)).await?;
    let mut config = spec::container("gain", &image, &["/su/busybox", "id", "-u"]);
    let security = spec::security(&mut config);
    security.run_as_user = Some(k8s_cri::v1::Int64Value { value: 1000 });
    security.no_new_privs = true;
    assert_eq!(pod.output(node, &config).await?, "1000\n");
    let found = std::fs::read_dir(node.root().join("images/layers"))?
        .flatten()
        .find_map(|entry| entry.path().join("fs/su/busybox").metadata().ok());
    let mode = found.map(|meta| meta.permissions().mode() & 0o7777);
    anyhow::ensure!(mode == Some(0o4755), "{mode:?}");
    Ok(())
}
