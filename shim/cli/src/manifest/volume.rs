//! One volume of a manifest.

use super::fields::Fields;
use super::model::{HostPathCheck, Volume, VolumeSource};
use super::report::Report;
use super::tree::{Node, Value};
use super::{names, refused};

pub(crate) fn read(node: &Node, path: String, report: &Report) -> Option<Volume> {
    let fields = Fields::of(node, path, report)?;
    let name = fields.required_text("name");
    if let Some(name) = &name {
        name.check(report, |name| names::label_fault(name));
    }
    let source = source(&fields, node);
    fields.finish(refused::VOLUME);
    Some(Volume {
        name: name?,
        source: source?,
    })
}

fn source(fields: &Fields<'_>, node: &Node) -> Option<VolumeSource> {
    let report = fields.report();
    match (fields.fields("emptyDir"), fields.fields("hostPath")) {
        (Some(empty_dir), None) => {
            if let Some(medium) = empty_dir
                .text("medium")
                .filter(|medium| !medium.value.is_empty())
            {
                medium.wrong(report, "only a kubelet can serve this; remove it");
            }
            empty_dir.finish(refused::EMPTY_DIR);
            Some(VolumeSource::EmptyDir)
        }
        (None, Some(host_path)) => read_host_path(host_path),
        (Some(_), Some(_)) => {
            report.add(
                node.at,
                fields.path("hostPath"),
                "a volume has one source only",
            );
            None
        }
        (None, None) => {
            let refused = refused::VOLUME
                .iter()
                .any(|refused| has(node, refused.field));
            if !refused && !has(node, "emptyDir") && !has(node, "hostPath") {
                report.add(
                    node.at,
                    fields.path("hostPath"),
                    "a volume needs a source: hostPath or emptyDir: {}",
                );
            }
            None
        }
    }
}

fn has(node: &Node, field: &str) -> bool {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .any(|(key, value)| key.name == field && !matches!(value.value, Value::Null)),
        _ => false,
    }
}

fn read_host_path(fields: Fields<'_>) -> Option<VolumeSource> {
    let path = fields.required_text("path");
    if let Some(path) = &path {
        names::check_absolute(path, fields.report());
    }
    let check = fields.choice(
        "type",
        &[
            ("", HostPathCheck::None),
            ("DirectoryOrCreate", HostPathCheck::DirectoryOrCreate),
            ("Directory", HostPathCheck::Directory),
            ("FileOrCreate", HostPathCheck::FileOrCreate),
            ("File", HostPathCheck::File),
            ("Socket", HostPathCheck::Socket),
            ("CharDevice", HostPathCheck::CharDevice),
            ("BlockDevice", HostPathCheck::BlockDevice),
        ],
    );
    fields.finish(&[]);
    let check = check.map(|check| check.value).unwrap_or_default();
    Some(VolumeSource::HostPath { path: path?, check })
}
