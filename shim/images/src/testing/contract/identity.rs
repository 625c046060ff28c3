//! What an image is, and by which names it goes.

use std::future::Future;

use futures_util::future::join_all;

use crate::engine::Error;
use crate::testing::TestImage;

use super::{Bench, Trouble, World, pull};

pub(super) async fn run<W: World, F: Future<Output = W>>(make: &impl Fn() -> F) {
    a_tag_gives_one_name_and_one_digest(Bench::new(make).await).await;
    a_bare_name_is_latest(Bench::new(make).await).await;
    a_digest_gives_no_tag(Bench::new(make).await).await;
    one_configuration_is_one_image(Bench::new(make).await).await;
    a_tag_moves_and_the_old_image_stays(Bench::new(make).await).await;
    different_configurations_are_different_images(Bench::new(make).await).await;
    failures_have_their_kind_and_change_nothing(Bench::new(make).await).await;
    pulls_at_once_agree(Bench::new(make).await).await;
    queries_are_checked(Bench::new(make).await).await;
}

async fn a_tag_gives_one_name_and_one_digest<W: World>(bench: Bench<W>) {
    let (image, reference) = (TestImage::small("a"), bench.at("r/a:1"));
    let id = bench.published(&reference, &image).await;
    assert_eq!(id.0, image.id().to_string());
    let status = bench.image(&reference).await;
    assert_eq!(status.id, id);
    assert_eq!(status.repo_tags, std::slice::from_ref(&reference));
    let digest = format!("{}@{}", bench.at("r/a"), image.manifest_digest());
    assert_eq!(status.repo_digests, std::slice::from_ref(&digest));
    assert!(status.size > 0);
    assert_eq!(
        (status.user.as_str(), &status.config.cmd[..]),
        ("1000:1000", &["a".to_owned()][..])
    );
    assert_eq!(status.config_json.as_bytes(), image.config);
    assert!(status.chain_id.starts_with("sha256:"));
    let hex = image.id().hex().to_owned();
    for query in [&digest, &id.0, &hex, &hex[..12].to_owned()] {
        assert_eq!(bench.image(query).await, status, "by {query}");
    }
}

async fn a_bare_name_is_latest<W: World>(bench: Bench<W>) {
    let image = TestImage::small("latest");
    bench.publish(&bench.at("r/bare:latest"), &image).await;
    bench.pull(&bench.at("r/bare")).await;
    let status = bench.image(&bench.at("r/bare")).await;
    assert_eq!(status.repo_tags, [bench.at("r/bare:latest")]);
}

async fn a_digest_gives_no_tag<W: World>(bench: Bench<W>) {
    let image = TestImage::small("d");
    bench.publish(&bench.at("r/d:1"), &image).await;
    let by_digest = format!("{}@{}", bench.at("r/d"), image.manifest_digest());
    let id = bench.pull(&by_digest).await;
    let status = bench.image(&by_digest).await;
    assert!(status.repo_tags.is_empty(), "{:?}", status.repo_tags);
    assert_eq!(status.repo_digests, std::slice::from_ref(&by_digest));
    assert!(bench.status(&bench.at("r/d:1")).await.is_none());
    bench.pull(&bench.at("r/d:1")).await;
    bench.pull(&by_digest).await;
    let status = bench.image(&id.0).await;
    assert_eq!(status.repo_tags, [bench.at("r/d:1")]);
    assert_eq!(status.repo_digests, [by_digest]);
}

async fn one_configuration_is_one_image<W: World>(bench: Bench<W>) {
    let image = TestImage::small("same");
    let [one, two] = bench.world.hosts();
    let mut names: Vec<String> = [&one, &two]
        .iter()
        .flat_map(|h| [format!("{h}/p:1"), format!("{h}/p:2")])
        .collect();
    names.sort();
    let mut ids = Vec::new();
    for name in &names {
        ids.push(bench.published(name, &image).await);
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(bench.ids().await.len(), 1);
    let status = bench.image(&ids[0].0).await;
    assert_eq!(status.repo_tags, names);
    assert_eq!(status.repo_digests.len(), 2);
    for name in &names {
        assert_eq!(bench.image(name).await, status);
    }
}

async fn a_tag_moves_and_the_old_image_stays<W: World>(bench: Bench<W>) {
    let (old, new, tag) = (
        TestImage::small("old"),
        TestImage::small("new"),
        bench.at("r/m:1"),
    );
    let first = bench.published(&tag, &old).await;
    let second = bench.published(&tag, &new).await;
    assert_ne!(first, second);
    assert_eq!(bench.image(&tag).await.id, second);
    let left = bench.image(&first.0).await;
    assert!(left.repo_tags.is_empty());
    assert_eq!(bench.ids().await.len(), 2);
    assert_eq!(
        bench.published(&tag, &old).await,
        first,
        "a tag is resolved anew each time"
    );
    assert_eq!(bench.image(&tag).await.id, first);
    assert!(bench.image(&second.0).await.repo_tags.is_empty());
}

async fn different_configurations_are_different_images<W: World>(bench: Bench<W>) {
    for name in ["x", "y", "z"] {
        bench
            .published(&bench.at(&format!("r/{name}:1")), &TestImage::small(name))
            .await;
    }
    let list = bench.engine.list().await.unwrap_or_default();
    assert_eq!(list.len(), 3);
    assert!(list.iter().all(|image| image.repo_tags.len() == 1));
}

async fn failures_have_their_kind_and_change_nothing<W: World>(bench: Bench<W>) {
    let id = bench
        .published(&bench.at("r/good:1"), &TestImage::small("good"))
        .await;
    let before = bench.image(&id.0).await;
    for trouble in [
        Trouble::Missing,
        Trouble::Denied,
        Trouble::Unavailable,
        Trouble::Corrupt,
    ] {
        let reference = bench.at(&format!("r/{trouble:?}:1").to_lowercase());
        bench.world.trouble(&reference, trouble).await;
        let error = bench.try_pull(&reference).await.expect_err("trouble");
        let right = match trouble {
            Trouble::Missing => matches!(error, Error::NotFound(_)),
            Trouble::Denied => matches!(error, Error::Denied { .. }),
            Trouble::Unavailable => matches!(error, Error::Unavailable { .. }),
            Trouble::Corrupt => matches!(error, Error::Corrupt { .. }),
        };
        assert!(right, "{trouble:?} gave {error:?}");
        assert!(bench.status(&reference).await.is_none());
        assert_eq!(bench.image(&bench.at("r/good:1")).await, before);
        assert_eq!(bench.ids().await, std::slice::from_ref(&id.0));
    }
}

async fn pulls_at_once_agree<W: World>(bench: Bench<W>) {
    let image = TestImage::small("crowd");
    let names: Vec<String> = (0..8)
        .map(|n| bench.at(&format!("r/crowd:{}", n % 4)))
        .collect();
    for name in &names {
        bench.publish(name, &image).await;
    }
    let pulls = names.iter().map(|name| pull(bench.engine.as_ref(), name));
    for pulled in join_all(pulls).await {
        assert_eq!(
            pulled.unwrap_or_else(|e| panic!("{e:?}")).0,
            image.id().to_string()
        );
    }
    assert_eq!(
        bench.image(&image.id().to_string()).await.repo_tags.len(),
        4
    );
    assert_eq!(bench.ids().await.len(), 1);
}

async fn queries_are_checked<W: World>(bench: Bench<W>) {
    for query in ["", "../x", "UPPER", "a b", "x@sha256:00"] {
        let status = bench.engine.status(query).await;
        assert!(
            matches!(status, Err(Error::Invalid { .. })),
            "{query:?}: {status:?}"
        );
        let pulled = bench.try_pull(query).await;
        assert!(
            matches!(pulled, Err(Error::Invalid { .. })),
            "{query:?}: {pulled:?}"
        );
    }
    assert!(bench.status("not-there").await.is_none());
    assert!(
        bench
            .status(&format!("sha256:{}", "0".repeat(64)))
            .await
            .is_none()
    );
}
