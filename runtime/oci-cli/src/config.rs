//! The configuration as the runtime gets it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

/// Points the spec at the bundle's mounts, and leaves out what is settled already:
/// limits, which the daemon has set, and an oom_score_adj, which is inherited.
pub(crate) fn adapt(spec: &mut Spec, rootfs: &Path, sources: &BTreeMap<usize, PathBuf>) {
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_owned());
    }
    if let Some(process) = spec.process_mut() {
        process.set_oom_score_adj(None);
    }
    if let Some(linux) = spec.linux_mut() {
        // The rules stay: a runtime brings its own where it is told none.
        let devices = linux.resources().as_ref().and_then(|r| r.devices().clone());
        let mut resources = LinuxResources::default();
        resources.set_devices(devices);
        linux.set_resources(Some(resources));
    }
    for (index, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        let Some(source) = sources.get(&index) else {
            continue;
        };
        mount.set_source(Some(source.clone()));
        mount.set_typ(Some("bind".to_owned()));
        let mut options = mount.options().clone().unwrap_or_default();
        if !options
            .iter()
            .any(|option| option == "bind" || option == "rbind")
        {
            options.insert(0, "rbind".to_owned());
        }
        mount.set_options(Some(options));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["a"],
            "oomScoreAdj": -5},
        "linux": {"resources": {"memory": {"limit": 5}, "unified": {"memory.high": "3"},
            "devices": [{"allow": false, "access": "rwm"}]}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
            {"destination": "/image", "type": "image", "source": "x", "options": ["ro"]}]}"#;

    #[test]
    fn sources_are_the_bundles_and_limits_stay_out() {
        let mut spec: Spec = serde_json::from_str(SPEC).unwrap();
        let sources = BTreeMap::from([(1, "/b/1".into()), (2, "/b/2".into())]);
        adapt(&mut spec, Path::new("/b/rootfs"), &sources);
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(value["root"]["path"], "/b/rootfs");
        assert_eq!(value["process"].get("oomScoreAdj"), None);
        let resources = value["linux"]["resources"].as_object().unwrap();
        let kept: Vec<_> = resources.iter().filter(|(_, v)| !v.is_null()).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(resources["devices"][0]["allow"], false);
        let mounts = value["mounts"].as_array().unwrap();
        assert_eq!(mounts[0]["source"], "proc");
        assert_eq!(mounts[1]["source"], "/b/1");
        assert_eq!(mounts[1]["options"], serde_json::json!(["rbind", "ro"]));
        assert_eq!(mounts[2]["type"], "bind");
        assert_eq!(mounts[2]["options"], serde_json::json!(["rbind", "ro"]));
    }
}
