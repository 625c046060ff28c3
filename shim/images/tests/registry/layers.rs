//! Layers through cuts, stalls and lies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carpel_images::engine::{Credentials, Error, LayerState, Progress};
use carpel_images::reference::Reference;
use carpel_images::registry::{Descriptor, Registry, RegistryConfig, Verifier, error_from_io};
use http::header::RANGE;
use tokio::io::AsyncReadExt;

use crate::fake::{FakeRegistry, Fault, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, config, descriptor};
use crate::{
    REPOSITORY, corrupt, fake, first_layer, layer_bytes, pull, quick, read, session, session_of,
    unavailable, with_image,
};

#[tokio::test]
async fn server_errors_pass_with_patience() {
    let (registry, _) = with_image().await;
    registry.fault("/manifests/", Fault::Status(503, Vec::new()), 2);
    registry.fault("/blobs/", Fault::Status(500, Vec::new()), 2);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
}

#[tokio::test]
async fn foreign_layer_urls_are_never_asked() {
    let registry = FakeRegistry::start().await;
    let elsewhere = FakeRegistry::start().await;
    let mut layer = descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        b"x",
    );
    layer["urls"] = serde_json::json!([format!("{}/layer", elsewhere.url())]);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config("a")), "layers": [layer],
    })
    .to_string();
    registry.put_blob(REPOSITORY, &config("a"));
    registry.put_manifest(REPOSITORY, Some("1"), OCI_MANIFEST, manifest.as_bytes());
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    let named = fake::sha256(b"x");
    assert!(
        matches!(&error, Error::NotFound(what) if what.contains(&named)),
        "{error}"
    );
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_cut_layer_goes_on_where_it_was_cut() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 2);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    let asked = registry.requests_for(&pushed.layers[0]);
    let ranges: Vec<_> = asked
        .iter()
        .map(|r| r.header(RANGE).map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=500000-".into()),
            Some("bytes=1000000-".into())
        ]
    );
}

#[tokio::test]
async fn a_range_ignored_is_skipped_over() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 1);
    registry.always(&pushed.layers[0], Fault::IgnoreRange);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 2);
}

#[tokio::test]
async fn a_layer_cut_for_ever_is_given_up() {
    let (registry, pushed) = with_image().await;
    registry.always(&pushed.layers[0], Fault::Cut(1000));
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    assert!(unavailable(&error), "{error}");
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 4);
}

#[tokio::test]
async fn an_early_end_that_looks_regular_is_a_cut_too() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Short(1000), 1);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
}

#[tokio::test]
async fn wrong_lengths_and_digests_are_corrupt() {
    let mut flipped = layer_bytes();
    flipped[77] ^= 1;
    let faults = [
        Fault::Content(flipped),
        Fault::Content(b"short".to_vec()),
        Fault::Long(5),
        Fault::Header("content-length", "12".into()),
    ];
    for fault in faults {
        let (registry, pushed) = with_image().await;
        registry.always(&pushed.layers[0], fault.clone());
        let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
        assert!(corrupt(&error), "{error}");
    }
}

#[tokio::test]
async fn a_reader_gives_the_same_error() {
    let (registry, pushed) = with_image().await;
    let mut flipped = layer_bytes();
    flipped[77] ^= 1;
    registry.always(&pushed.layers[0], Fault::Content(flipped));
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    let stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    let mut bytes = Vec::new();
    let error = stream
        .into_reader()
        .read_to_end(&mut bytes)
        .await
        .unwrap_err();
    assert!(corrupt(&error_from_io("read", error)));
}

#[tokio::test]
async fn a_stalled_or_dripping_body_counts_as_cut() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Drip(Duration::from_millis(50)), 1);
    registry.fault("/manifests/", Fault::Hang, 1);
    let start = Instant::now();
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert!(
        registry.requests_for(&pushed.layers[0])[1]
            .header(RANGE)
            .is_some()
    );

    registry.always(&pushed.layers[0], Fault::Drip(Duration::from_secs(60)));
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    assert!(
        unavailable(&error) && error.to_string().contains("stalled"),
        "{error}"
    );
}

#[tokio::test]
async fn a_slow_reader_is_not_a_stalled_registry() {
    let (registry, pushed) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    let mut stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    stream.next_chunk().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    while stream.next_chunk().await.unwrap().is_some() {}
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 1);
}

#[tokio::test]
async fn a_layer_is_resumed_behind_what_is_there_already() {
    let (registry, _) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let layer = session.resolve().await.unwrap().manifest.layers[0].clone();
    let whole = layer_bytes();
    for have in [0, 1, 700_000, whole.len()] {
        let mut seen = Verifier::new(&layer.digest);
        seen.update(&whole[..have]);
        let rest = read(session.resume_layer(&layer, seen).await.unwrap())
            .await
            .unwrap();
        assert!(rest == whole[have..], "from {have}");
    }
    let mut wrong = Verifier::new(&layer.digest);
    wrong.update(b"not the beginning");
    let stream = session.resume_layer(&layer, wrong).await.unwrap();
    assert!(corrupt(&read(stream).await.unwrap_err()));
    let mut long = Verifier::new(&layer.digest);
    long.update(&vec![0; whole.len() + 1]);
    assert!(session.resume_layer(&layer, long).await.is_err());
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let (registry, _) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let of = |digest: &str| Descriptor {
        media_type: OCI_LAYER.to_owned(),
        digest: digest.parse().unwrap(),
        size: 0,
    };
    let stream = session.open_layer(&of(empty)).await.unwrap();
    assert_eq!(read(stream).await.unwrap(), b"");
    let stream = session.open_layer(&of(&fake::sha256(b"x"))).await.unwrap();
    assert!(corrupt(&read(stream).await.unwrap_err()));
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<u64>>);

impl Progress for Seen {
    fn layer(&self, _digest: &str, state: LayerState) {
        if let LayerState::Fetching { current, total } = state {
            assert_eq!(total, 1_200_000);
            self.0.lock().unwrap().push(current);
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_as_they_come() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 1);
    let name = Reference::parse(&format!("{}/{REPOSITORY}:1", registry.host())).unwrap();
    let seen = Arc::new(Seen::default());
    let progress: Arc<dyn Progress> = Arc::<Seen>::clone(&seen);
    let client = Registry::new(quick()).unwrap();
    first_layer(
        &client
            .session(&name, Credentials::Anonymous, progress)
            .unwrap(),
    )
    .await
    .unwrap();
    let seen = seen.0.lock().unwrap();
    assert!(seen.len() > 2 && seen.is_sorted());
    assert_eq!(seen.last(), Some(&1_200_000));
}

#[tokio::test]
async fn no_more_layers_than_allowed_are_open_at_once() {
    let (registry, _) = with_image().await;
    let name = format!("{}/{REPOSITORY}:1", registry.host());
    let two = RegistryConfig {
        max_concurrent_layers: 2,
        ..quick()
    };
    let session = session_of(two, &name, Credentials::Anonymous);
    let layer = session.resolve().await.unwrap().manifest.layers[0].clone();
    let first = session.open_layer(&layer).await.unwrap();
    let _second = session.open_layer(&layer).await.unwrap();
    let soon = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(soon, session.open_layer(&layer))
            .await
            .is_err()
    );
    drop(first);
    assert!(
        tokio::time::timeout(soon, session.open_layer(&layer))
            .await
            .unwrap()
            .is_ok()
    );
}
