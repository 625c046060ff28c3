//! Registries that want to know who asks, and registries that misbehave.

use carpel_conformance::registry::{Auth, Fault, Target};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, assert_refused};

const IMAGE: &str = "gcr.io/k8s-staging-cri-tools/test-image-tag:test";

fn credentials(user: &str, password: &str) -> Option<cri::AuthConfig> {
    Some(cri::AuthConfig {
        username: user.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_a_guarded_registry_and_nothing_else_does() -> Outcome {
    let node = Node::with(&[]).await?;
    for auth in [
        Auth::basic("someone", "secret"),
        Auth::bearer("someone", "secret"),
    ] {
        node.registry().set_auth(auth);
        for wrong in [None, credentials("someone", "wrong")] {
            let result = node.cri().pull_as(IMAGE, wrong).await;
            let status = result.expect_err("wrong credentials");
            let refused = matches!(
                status.code(),
                Code::PermissionDenied | Code::Unauthenticated
            );
            assert!(refused, "{status}");
            assert!(!status.message().contains("wrong\""), "{status}");
        }
        node.cri()
            .pull_as(IMAGE, credentials("someone", "secret"))
            .await?;
        let id = node.cri().image(IMAGE).await?.expect("the image").id;
        node.cri().remove_image(&id).await?;
    }
    let encoded = cri::AuthConfig {
        auth: "c29tZW9uZTpzZWNyZXQ=".to_owned(),
        ..Default::default()
    };
    let id = node.cri().pull_as(IMAGE, Some(encoded)).await?;
    node.cri().remove_image(&id).await?;
    node.finish().await
}

/// Pulls from a registry with a fault: refused with one of these codes, nothing kept.
async fn refused(node: &Node, target: Target, fault: Fault, codes: &[Code]) -> Outcome {
    node.registry().fail(target, fault.clone(), u32::MAX);
    let status = node
        .cri()
        .pull(IMAGE)
        .await
        .expect_err("a registry with a fault");
    assert!(
        codes.contains(&status.code()),
        "{target:?} {fault:?}: {status}"
    );
    assert!(
        status.message().contains("test-image-tag"),
        "{fault:?}: {status}"
    );
    node.registry().heal();
    assert_eq!(node.cri().image(IMAGE).await?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_an_error_is_passed_on_as_what_it_means() -> Outcome {
    let node = Node::with(&[]).await?;
    let denied = [Code::PermissionDenied, Code::Unauthenticated];
    refused(&node, Target::Manifest, Fault::Status(401), &denied).await?;
    refused(&node, Target::Manifest, Fault::Status(403), &denied).await?;
    refused(
        &node,
        Target::Manifest,
        Fault::Status(404),
        &[Code::NotFound],
    )
    .await?;
    refused(
        &node,
        Target::Manifest,
        Fault::Status(500),
        &[Code::Unavailable],
    )
    .await?;
    refused(&node, Target::Blob, Fault::Status(404), &[Code::NotFound]).await?;
    refused(
        &node,
        Target::Blob,
        Fault::Status(500),
        &[Code::Unavailable],
    )
    .await?;
    node.cri().pull(IMAGE).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_asked_for_are_not_kept() -> Outcome {
    let node = Node::with(&[]).await?;
    let damaged = [
        Code::Internal,
        Code::DataLoss,
        Code::Unavailable,
        Code::InvalidArgument,
    ];
    refused(&node, Target::Manifest, Fault::Garbage, &damaged).await?;
    refused(&node, Target::Blob, Fault::Garbage, &damaged).await?;
    refused(&node, Target::Blob, Fault::Flipped, &damaged).await?;
    refused(&node, Target::Manifest, Fault::CutAfter(100), &damaged).await?;
    refused(&node, Target::Blob, Fault::CutAfter(100), &damaged).await?;
    assert!(node.cri().list_images().await?.is_empty());
    node.cri().pull(IMAGE).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_after_a_cut_and_after_a_wait() -> Outcome {
    let node = Node::with(&[]).await?;
    node.registry()
        .fail(Target::Blob, Fault::CutAfter(50_000), 1);
    node.registry().fail(Target::Manifest, Fault::Busy(1), 1);
    node.cri().pull(spec::BUSYBOX).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_not_have_is_told_by_name() -> Outcome {
    let node = Node::with(&[]).await?;
    let result = node.cri().pull("registry.k8s.io/no/such/image:9").await;
    assert_refused(result, Code::NotFound, &["no/such/image"]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_there_are_not_fetched_again() -> Outcome {
    let node = Node::with(&[spec::BUSYBOX]).await?;
    node.registry().take_seen();
    node.cri().pull(spec::NGINX).await?;
    let content = node.registry().take_seen();
    let blobs: Vec<_> = content
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"))
        .collect();
    assert_eq!(
        blobs.len(),
        2,
        "the configuration and the upper layer: {blobs:?}"
    );
    node.rebase()?;
    node.finish().await
}
