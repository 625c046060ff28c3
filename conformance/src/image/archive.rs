//! Images as archives, in the two forms people pass them around in.

use serde_json::{Value, json};
use tar::{Builder, Header};

use super::Content;

/// An OCI layout with one image, which `name` names.
pub fn oci_archive(content: &Content, manifest: &str, name: &str) -> Vec<u8> {
    let media_type = &content.manifests[manifest].media_type;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": media_type,
            "digest": manifest,
            "size": content.blobs[manifest].len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }],
    });
    let mut tar = Builder::new(Vec::new());
    entry(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    entry(&mut tar, "index.json", index.to_string().as_bytes());
    for (digest, data) in &content.blobs {
        entry(
            &mut tar,
            &format!("blobs/{}", digest.replace(':', "/")),
            data,
        );
    }
    tar.into_inner().expect("writing to memory cannot fail")
}

/// What `docker save` writes, of an image whose layers are not packed.
pub fn docker_archive(content: &Content, manifest: &str, name: &str) -> Vec<u8> {
    let parsed: Value = serde_json::from_slice(&content.blobs[manifest]).expect("our own JSON");
    let digest = |value: &Value| value["digest"].as_str().expect("our own JSON").to_owned();
    let file = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let mut tar = Builder::new(Vec::new());
    let config = digest(&parsed["config"]);
    entry(
        &mut tar,
        &format!("{}.json", file(&config)),
        &content.blobs[&config],
    );
    let mut layers = Vec::new();
    for layer in parsed["layers"].as_array().expect("our own JSON") {
        let digest = digest(layer);
        let path = format!("{}/layer.tar", file(&digest));
        entry(&mut tar, &path, &content.blobs[&digest]);
        layers.push(path);
    }
    let list = json!([{
        "Config": format!("{}.json", file(&config)),
        "RepoTags": [name],
        "Layers": layers,
    }]);
    entry(&mut tar, "manifest.json", list.to_string().as_bytes());
    tar.into_inner().expect("writing to memory cannot fail")
}

fn entry(tar: &mut Builder<Vec<u8>>, path: &str, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data)
        .expect("writing to memory cannot fail");
}
