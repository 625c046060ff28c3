//! Registries that want to know who asks, and registries that misbehave.

use carpel_conformance::registry::{Auth, Fault, Target};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, assert_refused};

/// An image that is asked of the registry itself, not of a mirror.
fn image(node: &Node) -> String {
    format!(
        "{}/k8s-staging-cri-tools/test-image-tag:test",
        node.registry().host()
    )
}

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
            let result = node.cri().pull_as(&image(&node), wrong).await;
            let status = result.expect_err("wrong credentials");
            let refused = matches!(
                status.code(),
                Code::PermissionDenied | Code::Unauthenticated
            );
            assert!(refused, "{status}");
            assert!(!status.message().contains("wrong\""), "{status}");
        }
        node.cri()
            .pull_as(&image(&node), credentials("someone", "secret"))
            .await?;
        let id = node
            .cri()
            .image(&image(&node))
            .await?
            .expect("the image")
            .id;
        node.cri().remove_image(&id).await?;
    }
    let encoded = cri::AuthConfig {
        auth: "c29tZW9uZTpzZWNyZXQ=".to_owned(),
        ..Default::default()
    };
    let id = node.cri().pull_as(&image(&node), Some(encoded)).await?;
    node.cri().remove_image(&id).await?;
    node.finish().await
}

/// Pulls from a registry with a fault: refused with one of these codes, nothing kept.
async fn refused(node: &Node, target: Target, fault: Fault, codes: &[Code]) -> Outcome {
    let image = image(node);
    node.registry().fail(target, fault.clone(), u32::MAX);
    let status = node
        .cri()
        .pull(&image)
        .await
        .expect_err("a registry with a fault");
    assert!(
        codes.contains(&status.code()),
        "{target:?} {fault:?}: {status}"
    );
    // A registry that does not work is named itself; else it is the image.
    assert!(
        status.message().contains(&node.registry().host()),
        "{fault:?}: {status}"
    );
    node.registry().heal();
    assert_eq!(node.cri().image(&image).await?, None);
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
    node.cri().pull(&image(&node)).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_asked_for_are_not_kept() -> Outcome {
    let node = Node::with(&[]).await?;
    let damaged = [Code::FailedPrecondition, Code::DataLoss, Code::Unavailable];
    refused(&node, Target::Manifest, Fault::Garbage, &damaged).await?;
    refused(&node, Target::Blob, Fault::Garbage, &damaged).await?;
    refused(&node, Target::Blob, Fault::Flipped, &damaged).await?;
    refused(&node, Target::Manifest, Fault::CutAfter(100), &damaged).await?;
    refused(&node, Target::Blob, Fault::CutAfter(100), &damaged).await?;
    assert!(node.cri().list_images().await?.is_empty());
    node.cri().pull(&image(&node)).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_after_a_cut_and_after_a_wait() -> Outcome {
    let node = Node::with(&[]).await?;
    node.registry()
        .fail(Target::Blob, Fault::CutAfter(50_000), 1);
    node.registry().fail(Target::Manifest, Fault::Busy(1), 1);
    let name = format!("{}/e2e-test-images/busybox:1.29-2", node.registry().host());
    node.cri().pull(&name).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_not_have_is_told_by_name() -> Outcome {
    let node = Node::with(&[]).await?;
    let result = node
        .cri()
        .pull(&format!("{}/no/such/image:9", node.registry().host()))
        .await;
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
