//! The format of specification files. A field that is not known is refused: half a
//! device is worse than none.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::name;

/// Those that differ in nothing that we read.
const VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

/// One file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Specification {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// For whatever device of this file is asked for.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) intel_rdt: Option<IntelRdt>,
    pub(super) net_devices: Vec<NetDevice>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: String,
    #[serde(default)]
    pub(super) host_path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) file_mode: Option<u32>,
    #[serde(default)]
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

/// Refused when asked for; read only to say so by name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(default, rename = "args")]
    _args: Vec<String>,
    #[serde(default, rename = "env")]
    _env: Vec<String>,
    #[serde(default, rename = "timeout")]
    _timeout: Option<i64>,
}

/// Refused when asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct IntelRdt {}

/// Refused when asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetDevice {
    pub(super) host_interface_name: String,
    #[serde(rename = "name")]
    _name: String,
}

impl Specification {
    /// What makes a well-formed file unusable.
    pub(super) fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            return Err(format!("cdiVersion {:?} is not known", self.cdi_version));
        }
        name::check_kind(&self.kind).map_err(|why| format!("kind {:?} {why}", self.kind))?;
        if self.devices.is_empty() {
            return Err("has no devices".to_owned());
        }
        self.container_edits.check()?;
        for (index, device) in self.devices.iter().enumerate() {
            let says = |why: &str| format!("device {:?}: {why}", device.name);
            name::check_device(&device.name).map_err(says)?;
            if self.devices[..index].iter().any(|d| d.name == device.name) {
                return Err(says("is there twice"));
            }
            device.container_edits.check().map_err(|why| says(&why))?;
        }
        Ok(())
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        if let Some(entry) = self
            .env
            .iter()
            .find(|entry| entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0'))
        {
            return Err(format!("env {entry:?} is not NAME=VALUE"));
        }
        let host = self.mounts.iter().map(|mount| &mount.host_path);
        let paths = host.chain(self.mounts.iter().map(|mount| &mount.container_path));
        let paths = paths.chain(self.device_nodes.iter().map(|node| &node.path));
        for path in paths {
            if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|p| p == "..") {
                return Err(format!("path {path:?} is not an absolute plain path"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Specification, String> {
        let read: Specification = serde_json::from_str(text).map_err(|error| error.to_string())?;
        read.check().map(|()| read)
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"{"cdiVersion": "1.1.0", "kind": "example.com/card", "annotations": {"a": "b"},
            "devices": [{"name": "0", "annotations": {}, "containerEdits": {
                "env": ["A=b"], "additionalGids": [44],
                "deviceNodes": [{"path": "/dev/card0", "hostPath": "/dev/real", "type": "c",
                    "major": 1, "minor": 3, "fileMode": 432, "permissions": "rw", "uid": 1, "gid": 2}],
                "mounts": [{"hostPath": "/lib", "containerPath": "/lib2", "type": "bind", "options": ["ro"]}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/x", "args": ["x"], "env": [], "timeout": 3}],
                "netDevices": [{"hostInterfaceName": "eth1", "name": "net1"}],
                "intelRdt": {"closID": "x", "l3CacheSchema": "y"}}}],
            "containerEdits": {"env": ["ALL=1"]}}"#;
        let read = read(text).unwrap();
        assert_eq!(read.devices[0].container_edits.additional_gids, [44]);
        assert_eq!(read.container_edits.env, ["ALL=1"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |version: &str, kind: &str, devices: &str| {
            let text = format!(
                r#"{{"cdiVersion": "{version}", "kind": "{kind}", "devices": [{devices}]}}"#
            );
            read(&text).unwrap_err()
        };
        let edits = |edits: &str| {
            with(
                "0.6.0",
                "v/c",
                &format!(r#"{{"name": "a", "containerEdits": {{{edits}}}}}"#),
            )
        };
        for (said, part) in [
            (with("9.0.0", "v/c", r#"{"name": "a"}"#), "\"9.0.0\""),
            (with("0.6.0", "vc", r#"{"name": "a"}"#), "\"vc\""),
            (with("0.6.0", "v/c", ""), "no devices"),
            (with("0.6.0", "v/c", r#"{"name": "a b"}"#), "\"a b\""),
            (
                with("0.6.0", "v/c", r#"{"name": "a"}, {"name": "a"}"#),
                "twice",
            ),
            (edits(r#""env": ["A"]"#), "\"A\""),
            (edits(r#""envs": []"#), "envs"),
            (edits(r#""deviceNodes": [{"path": "dev/x"}]"#), "\"dev/x\""),
            (
                edits(r#""mounts": [{"hostPath": "/a", "containerPath": "/a/../b"}]"#),
                "/a/../b",
            ),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
