//! All specifications of a node, and the devices found in them.

use super::edits::Injection;
use super::model::Specification;
use super::name;
use crate::error::{Error, Result};

/// A file that was read, or why it could not be.
#[derive(Debug, Clone)]
pub struct Found<S> {
    pub file: String,
    /// Place of its directory in the list: a later one goes before an earlier one.
    pub priority: usize,
    pub content: std::result::Result<S, String>,
}

/// Built for each container that asks for devices.
#[derive(Debug)]
pub struct Catalogue<'a> {
    /// Where files were looked for.
    pub directories: &'a [String],
    pub files: Vec<Found<&'a Specification>>,
}

impl Specification {
    /// What makes a well-formed file unusable, if anything does.
    pub fn verify(self) -> std::result::Result<Self, String> {
        self.check().map(|()| self)
    }
}

impl<'a> Catalogue<'a> {
    /// What these devices change about a container. Edits that a file has for all its
    /// devices come once, before those of the first of them.
    pub fn inject(&self, names: &[String]) -> Result<Injection> {
        let mut injection = Injection::default();
        let mut seen = Vec::new();
        let mut files: Vec<&str> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let field = format!("CDI_devices[{index}].name");
            let (kind, device) =
                name::split(name).map_err(|why| Error::invalid(&*field, name, why))?;
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let (file, specification) = self.find(&field, kind, device)?;
            if !files.contains(&file) {
                files.push(file);
                injection.add(name, &specification.container_edits)?;
            }
            for found in specification.devices.iter().filter(|d| d.name == device) {
                injection.add(name, &found.container_edits)?;
            }
        }
        Ok(injection)
    }

    fn find(&self, field: &str, kind: &str, device: &str) -> Result<(&str, &'a Specification)> {
        let name = || format!("{kind}={device}");
        let has = |specification: &Specification| {
            specification.kind == kind && specification.devices.iter().any(|d| d.name == device)
        };
        let candidates: Vec<_> = self
            .files
            .iter()
            .filter_map(|found| match found.content {
                Ok(content) if has(content) => Some((found, content)),
                _ => None,
            })
            .collect();
        let highest = candidates.iter().map(|(found, _)| found.priority).max();
        let mut best = candidates
            .iter()
            .filter(|(found, _)| Some(found.priority) == highest);
        match (best.next(), best.next()) {
            (None, _) => Err(Error::invalid(field, name(), self.not_found())),
            (Some((found, content)), None) => Ok((&found.file, *content)),
            (Some((one, _)), Some((other, _))) => {
                let why = format!("is defined twice, in {} and in {}", one.file, other.file);
                Err(Error::invalid(field, name(), why))
            }
        }
    }

    fn not_found(&self) -> String {
        let bad = self.files.iter().filter_map(|found| {
            let why = found.content.as_ref().err()?;
            Some(format!("; {} is not used: {why}", found.file))
        });
        let place = self.directories.join(", ");
        format!(
            "is not defined by any of the {} specifications in {place}{}",
            self.files.len(),
            bad.collect::<String>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DeviceKind;
    use crate::intent::Propagation;

    fn read(text: &str) -> std::result::Result<Specification, String> {
        let read: Specification = serde_json::from_str(text).map_err(|e| e.to_string())?;
        read.verify()
    }

    fn card(edits: &str) -> std::result::Result<Specification, String> {
        read(&format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "v/card",
                "devices": [{{"name": "0", "containerEdits": {{{edits}}}}},
                            {{"name": "1", "containerEdits": {{"env": ["ONE=1"]}}}}],
                "containerEdits": {{"env": ["COMMON=1"], "additionalGids": [7, 0]}}}}"#
        ))
    }

    type Read<'a> = (
        &'a str,
        usize,
        &'a std::result::Result<Specification, String>,
    );

    fn inject(files: &[Read<'_>], names: &[&str]) -> Result<Injection> {
        let directories = ["/etc/cdi".to_owned(), "/var/run/cdi".to_owned()];
        let files = files.iter().map(|(file, priority, content)| Found {
            file: (*file).to_owned(),
            priority: *priority,
            content: content.as_ref().map_err(Clone::clone),
        });
        let catalogue = Catalogue {
            directories: &directories,
            files: files.collect(),
        };
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        catalogue.inject(&names)
    }

    #[test]
    fn common_edits_come_once_and_first() {
        let file = card(r#""env": ["ZERO=a=b"], "additionalGids": [7, 8]"#);
        let found = inject(&[("a", 0, &file)], &["v/card=0", "v/card=1", "v/card=0"]).unwrap();
        let names: Vec<_> = found.env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["COMMON", "ZERO", "ONE"]);
        assert_eq!(found.env[1].1, "a=b");
        assert_eq!(found.groups, [7, 8]);
    }

    #[test]
    fn an_unknown_device_is_named_with_all_places() {
        let (good, bad) = (card(""), read("{"));
        let files = [("x.json", 0, &good), ("bad.json", 1, &bad)];
        for name in ["v/card=2", "w/card=0"] {
            let error = inject(&files, &[name]).unwrap_err().to_string();
            for part in [
                name,
                "CDI_devices[0]",
                "/etc/cdi",
                "/var/run/cdi",
                "bad.json",
            ] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        assert!(
            inject(&files, &["v/card=0"]).is_ok(),
            "others are not broken"
        );
        let error = inject(&files, &["v/card=1", "card"])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("CDI_devices[1].name: \"card\""),
            "{error}"
        );
    }

    #[test]
    fn a_later_directory_wins_and_equals_conflict() {
        let (one, other) = (
            card(r#""env": ["FROM=one"]"#),
            card(r#""env": ["FROM=other"]"#),
        );
        let found = inject(&[("a", 1, &one), ("b", 0, &other)], &["v/card=0"]).unwrap();
        assert!(found.env.contains(&("FROM".to_owned(), "one".to_owned())));
        let error = inject(&[("a.json", 1, &one), ("b.json", 1, &other)], &["v/card=0"]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("a.json") && error.contains("b.json"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_done_names_the_device_and_what_it_needs() {
        for (edits, part) in [
            (
                r#""hooks": [{"hookName": "createContainer", "path": "/bin/ldconfig"}]"#,
                "/bin/ldconfig",
            ),
            (
                r#""netDevices": [{"hostInterfaceName": "eth7", "name": "n"}]"#,
                "eth7",
            ),
            (r#""intelRdt": {"closID": "x"}"#, "Intel RDT"),
            (
                r#""deviceNodes": [{"path": "/dev/x", "type": "p"}]"#,
                "\"p\"",
            ),
            (
                r#""mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "tmpfs"}]"#,
                "tmpfs",
            ),
            (
                r#""mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["mand"]}]"#,
                "mand",
            ),
        ] {
            let file = card(edits);
            let error = inject(&[("a", 0, &file)], &["v/card=0"]).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }));
            let error = error.to_string();
            assert!(
                error.contains("v/card=0") && error.contains(part),
                "{error}"
            );
            assert!(inject(&[("a", 0, &file)], &["v/card=1"]).is_ok(), "{part}");
        }
    }

    #[test]
    fn nodes_and_mounts_are_taken_over() {
        let file = card(
            r#""deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/real"},
                {"path": "/dev/b", "type": "b", "major": 8, "minor": 1, "fileMode": 416, "permissions": "r"}],
               "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro", "nosuid", "rbind", "rslave"]}]"#,
        );
        let found = inject(&[("a", 0, &file)], &["v/card=0"]).unwrap();
        let [open, whole] = &found.nodes[..] else {
            panic!("two nodes: {found:?}")
        };
        assert!(open.needs_host() && open.host_path == "/dev/real" && open.device().is_none());
        assert!(!whole.needs_host() && whole.mode == Some(0o640) && whole.permissions == "r");
        assert_eq!(whole.device(), Some((DeviceKind::Block, 8, 1)));
        let mount = &found.mounts[0];
        assert!(mount.readonly && mount.recursive && mount.restrict.nosuid);
        assert_eq!(mount.propagation, Propagation::HostToContainer);
    }
}
