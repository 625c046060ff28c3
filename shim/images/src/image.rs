//! The image configuration document: what of it is used, and the chain of layers.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::engine::ImageConfig;
use crate::reference::{Algorithm, Digest};

/// Most layers of an image, as many as overlayfs stacks.
pub(crate) const LAYERS_MAX: usize = 500;

/// A configuration document that makes sense.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Section>,
    rootfs: Option<Rootfs>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Section {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

/// Reads a configuration; `Err` says what is wrong with it.
pub(crate) fn parse(json: &[u8]) -> Result<Parsed, String> {
    let document: Document =
        serde_json::from_slice(json).map_err(|e| format!("image configuration: {e}"))?;
    let diff_ids = document
        .rootfs
        .and_then(|rootfs| rootfs.diff_ids)
        .unwrap_or_default();
    if diff_ids.len() > LAYERS_MAX {
        return Err(format!("image has more than {LAYERS_MAX} layers"));
    }
    let diff_ids = diff_ids
        .iter()
        .map(|text| match Digest::parse(text) {
            Ok(digest) if digest.algorithm() == Algorithm::Sha256 => Ok(digest),
            Ok(_) => Err(format!("diff id {text:?} is not a sha256 digest")),
            Err(error) => Err(format!("diff id: {error}")),
        })
        .collect::<Result<_, _>>()?;
    let section = document.config.unwrap_or_default();
    let config = ImageConfig {
        entrypoint: section.entrypoint.unwrap_or_default(),
        cmd: section.cmd.unwrap_or_default(),
        env: section.env.unwrap_or_default(),
        working_dir: section.working_dir.unwrap_or_default(),
        user: section.user.unwrap_or_default(),
        stop_signal: section.stop_signal.unwrap_or_default(),
        volumes: section.volumes.unwrap_or_default().into_keys().collect(),
        labels: section.labels.unwrap_or_default(),
    };
    Ok(Parsed { config, diff_ids })
}

/// Names of the stacks that layers make, each of a layer and all below it.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_hash(Algorithm::Sha256, &Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_lacks_are_empty() {
        for json in [
            "{}",
            r#"{"config":null,"rootfs":null}"#,
            r#"{"config":{"Env":null}}"#,
        ] {
            let parsed = parse(json.as_bytes()).unwrap();
            assert_eq!(parsed.config, ImageConfig::default());
            assert!(parsed.diff_ids.is_empty());
        }
    }

    #[test]
    fn the_used_part_is_read() {
        let json = format!(
            r#"{{"architecture":"amd64","config":{{"User":"1:2","Env":["A=b"],"Cmd":["x"],
            "Entrypoint":["/e"],"Volumes":{{"/v":{{}}}},"WorkingDir":"/w","StopSignal":"SIGINT",
            "Labels":{{"k":"v"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
            "a".repeat(64)
        );
        let Parsed { config, diff_ids } = parse(json.as_bytes()).unwrap();
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("1:2", "/w")
        );
        assert_eq!(
            (config.cmd, config.entrypoint),
            (vec!["x".into()], vec!["/e".into()])
        );
        assert_eq!(
            (config.volumes, config.env),
            (vec!["/v".into()], vec!["A=b".into()])
        );
        assert_eq!(
            (config.stop_signal.as_str(), config.labels.len()),
            ("SIGINT", 1)
        );
        assert_eq!(diff_ids.len(), 1);
    }

    #[test]
    fn bad_diff_ids_are_refused() {
        for id in ["x", "sha256:../..", "md5:00"] {
            let json = format!(r#"{{"rootfs":{{"diff_ids":["{id}"]}}}}"#);
            assert!(parse(json.as_bytes()).is_err(), "{id}");
        }
        assert!(parse(b"[").is_err());
    }

    #[test]
    fn a_chain_hashes_what_is_below() {
        let a = sha256(b"a");
        let b = sha256(b"b");
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], sha256(format!("{a} {b}").as_bytes()));
        assert_ne!(chain, chain_ids(&[b, a]));
    }
}
