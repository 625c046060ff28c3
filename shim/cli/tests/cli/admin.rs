//! carpeld's own calls, and the commands that need them.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use carpel_proto::admin as wire;
use carpel_proto::admin::admin_server::Admin;
use carpel_proto::admin::pull_image_response::What;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::harness::Harness;

/// A name and an archive.
type Loaded = (String, Vec<u8>);

/// What was loaded, in order.
#[derive(Clone, Default)]
pub(crate) struct FakeAdmin(pub(crate) Arc<Mutex<Vec<Loaded>>>);

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for FakeAdmin {
    type SaveImageStream = Out<wire::SaveImageResponse>;
    type PullImageStream = Out<wire::PullImageResponse>;

    async fn health(
        &self,
        _: Request<wire::HealthRequest>,
    ) -> Result<Response<wire::HealthResponse>, Status> {
        let version = "9.9".to_owned();
        let health = wire::HealthResponse {
            version,
            started_at_ns: 1,
            pods: 4,
            containers: 5,
            pid: std::process::id(),
        };
        Ok(Response::new(health))
    }

    async fn dump_config(
        &self,
        _: Request<wire::DumpConfigRequest>,
    ) -> Result<Response<wire::DumpConfigResponse>, Status> {
        Ok(Response::new(wire::DumpConfigResponse {
            toml: "[paths]\n".to_owned(),
        }))
    }

    async fn leftovers(
        &self,
        _: Request<wire::LeftoversRequest>,
    ) -> Result<Response<wire::LeftoversResponse>, Status> {
        let leftover = wire::Leftover {
            kind: "link".to_owned(),
            name: "cpl0123".to_owned(),
            what: "device of nobody".to_owned(),
        };
        Ok(Response::new(wire::LeftoversResponse {
            leftovers: vec![leftover],
            failures: Vec::new(),
        }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<wire::LoadImageRequest>>,
    ) -> Result<Response<wire::LoadImageResponse>, Status> {
        let mut stream = request.into_inner();
        let (mut name, mut data) = (String::new(), Vec::new());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            name.push_str(&chunk.name);
            data.extend(chunk.data);
        }
        if data.is_empty() {
            return Err(Status::invalid_argument("the archive is empty"));
        }
        self.0.lock().unwrap().push((name.clone(), data));
        let image = wire::LoadedImage {
            id: "sha256:1".to_owned(),
            names: vec![name],
        };
        Ok(Response::new(wire::LoadImageResponse {
            images: vec![image],
        }))
    }

    async fn save_image(
        &self,
        request: Request<wire::SaveImageRequest>,
    ) -> Result<Response<Self::SaveImageStream>, Status> {
        let mut parts: Vec<Result<wire::SaveImageResponse, Status>> = vec![
            Ok(wire::SaveImageResponse {
                data: b"arch".to_vec(),
            }),
            Ok(wire::SaveImageResponse {
                data: b"ive".to_vec(),
            }),
        ];
        if request.into_inner().images[0] == "broken" {
            parts[1] = Err(Status::internal("the disk is gone"));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn pull_image(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let request = request.into_inner();
        let layer = |current| wire::LayerProgress {
            digest: "sha256:2".to_owned(),
            phase: wire::layer_progress::Phase::Fetching.into(),
            current,
            total: 10,
        };
        let id = format!("sha256:{}-{}", request.username, request.password);
        let parts = [
            What::Layer(layer(1)),
            What::Layer(layer(10)),
            What::ImageId(id),
        ];
        let parts = parts.map(|what| Ok(wire::PullImageResponse { what: Some(what) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

#[test]
fn an_archive_is_loaded_from_a_file_and_from_stdin() {
    let harness = Harness::with_admin();
    let data = vec![7; 3 << 20];
    let file = harness.write("image.tar", &data);
    let told = harness
        .carpel(&["load", "-i", &file, "--name", "a:1"])
        .succeed();
    assert_eq!(told, "image a:1 loaded\n");
    let told = harness
        .carpel_with(&["load", "-i", "-", "--name", "b:1"], b"xyz")
        .succeed();
    assert_eq!(told, "image b:1 loaded\n");
    let loaded = harness.admin.0.lock().unwrap();
    assert_eq!(loaded[0], ("a:1".to_owned(), data));
    assert_eq!(loaded[1], ("b:1".to_owned(), b"xyz".to_vec()));
}

#[test]
fn an_archive_that_cannot_be_read_or_is_refused() {
    let harness = Harness::with_admin();
    assert!(
        harness
            .carpel(&["load", "-i", "/none.tar"])
            .fail(1)
            .contains("open /none.tar")
    );
    assert!(
        harness
            .carpel(&["load", "-i", "/"])
            .fail(1)
            .contains("read /")
    );
    assert!(
        harness
            .carpel_with(&["load", "-i", "-"], b"")
            .fail(1)
            .contains("the archive is empty")
    );
    assert!(harness.admin.0.lock().unwrap().is_empty());
}

#[test]
fn an_image_is_saved_whole_or_not_at_all() {
    let harness = Harness::with_admin();
    let file = harness.path("out.tar");
    harness.carpel(&["save", "-o", &file, "a:1"]).succeed();
    assert_eq!(std::fs::read(&file).unwrap(), b"archive");
    let broken = harness.path("broken.tar");
    let told = harness.carpel(&["save", "-o", &broken, "broken"]).fail(1);
    assert!(told.contains("the disk is gone"), "{told}");
    assert!(
        !harness
            .files()
            .iter()
            .any(|name| name.starts_with("broken.tar"))
    );
    assert_eq!(
        harness.carpel(&["save", "-o", "-", "a:1"]).succeed(),
        "archive"
    );
}

#[test]
fn a_pull_hands_over_credentials_and_prints_the_id() {
    let harness = Harness::with_admin();
    let told = harness
        .carpel(&["pull", "a:1", "--creds", "me:pw"])
        .succeed();
    assert_eq!(told, "image a:1 is sha256:me-pw\n");
    let file = harness.write("creds", b"you:secret\n");
    let told = harness
        .carpel(&["pull", "a:1", "--creds-file", &file])
        .succeed();
    assert_eq!(told, "image a:1 is sha256:you-secret\n");
    let told = harness
        .carpel(&["pull", "a:1", "--creds", "secret"])
        .fail(2);
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn health_and_configuration() {
    let harness = Harness::with_admin();
    let told = harness.carpel(&["health"]).succeed();
    assert!(
        told.contains("RuntimeReady") && told.contains("4 pods, 5 containers"),
        "{told}"
    );
    assert_eq!(harness.carpel(&["config"]).succeed(), "[paths]\n");
}

#[test]
fn without_the_admin_socket_the_error_names_it() {
    let harness = Harness::new();
    for args in [
        &["load", "-i", "/dev/null"][..],
        &["save", "-o", "-", "a"],
        &["config"],
    ] {
        let told = harness.carpel(args).fail(1);
        assert!(
            told.contains("needs carpeld's admin socket") && told.contains("admin.sock"),
            "{told}"
        );
    }
    harness.carpel(&["health"]).succeed();
}
