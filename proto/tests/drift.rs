//! Our text of the CRI against the published one, taken as a Go module.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use protox::Compiler;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, MessageDescriptor,
    ServiceDescriptor,
};

const PUBLISHED: &str = "k8s.io/cri-api@v0.37.2";

#[test]
fn our_cri_is_the_published_one() {
    let ours = facts(&compile(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        "cri/v1/api.proto",
    ));
    let published = facts(&compile(
        &published_module(),
        "pkg/apis/runtime/v1/api.proto",
    ));
    assert!(
        published.len() > 500,
        "only {} facts in the published API",
        published.len()
    );

    let missing: Vec<_> = published.difference(&ours).collect();
    let added: Vec<_> = ours.difference(&published).collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "our text differs from {PUBLISHED}\npublished only: {missing:#?}\nours only: {added:#?}"
    );
}

#[test]
fn the_published_api_has_43_calls() {
    let pool = compile(Path::new(env!("CARGO_MANIFEST_DIR")), "cri/v1/api.proto");
    let calls: usize = pool.services().map(|service| service.methods().len()).sum();
    assert_eq!(calls, 43);
}

#[test]
fn a_changed_type_is_noticed() {
    assert_eq!(
        differences(
            "bool recursive_read_only = 8;",
            "int32 recursive_read_only = 8;"
        ),
        2
    );
}

#[test]
fn a_lost_option_is_noticed() {
    assert_eq!(differences(" [debug_redact = true]", ""), 8);
}

fn differences(from: &str, to: &str) -> usize {
    let directory = tempfile::tempdir().expect("temporary directory");
    let changed = include_str!("../cri/v1/api.proto").replace(from, to);
    std::fs::write(directory.path().join("api.proto"), changed).expect("write the changed text");
    let ours = facts(&compile(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        "cri/v1/api.proto",
    ));
    let other = facts(&compile(directory.path(), "api.proto"));
    ours.symmetric_difference(&other).count()
}

fn published_module() -> PathBuf {
    let output = Command::new("go")
        .args(["mod", "download", "-json", PUBLISHED])
        .current_dir(std::env::temp_dir())
        .output()
        .expect("run `go`: this test takes the published API as a Go module");
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("JSON from `go mod download`");
    let directory = answer["Dir"].as_str().unwrap_or_else(|| {
        panic!(
            "{PUBLISHED}: {}{}",
            answer,
            String::from_utf8_lossy(&output.stderr)
        )
    });
    directory.into()
}

fn compile(include: &Path, file: &str) -> DescriptorPool {
    let mut compiler = Compiler::new([include]).expect("a compiler");
    compiler
        .include_imports(true)
        .open_file(file)
        .unwrap_or_else(|error| {
            panic!("{}: {error}", include.join(file).display());
        });
    compiler.descriptor_pool()
}

/// One line for each thing that a peer could notice.
fn facts(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for message in pool
        .all_messages()
        .filter(|message| message.package_name() == "runtime.v1")
    {
        message_facts(&message, &mut facts);
    }
    for enumeration in pool
        .all_enums()
        .filter(|found| found.package_name() == "runtime.v1")
    {
        enum_facts(&enumeration, &mut facts);
    }
    for service in pool.services() {
        service_facts(&service, &mut facts);
    }
    facts
}

fn message_facts(message: &MessageDescriptor, facts: &mut BTreeSet<String>) {
    let name = message.full_name();
    facts.insert(format!("message {name}{}", options(&message.options())));
    facts.extend(
        message
            .fields()
            .map(|field| format!("{name}: {}", field_fact(&field))),
    );
    facts.extend(
        message
            .reserved_ranges()
            .map(|range| format!("{name}: reserved {range:?}")),
    );
    facts.extend(
        message
            .reserved_names()
            .map(|reserved| format!("{name}: reserved {reserved}")),
    );
}

fn field_fact(field: &FieldDescriptor) -> String {
    let oneof = field
        .containing_oneof()
        .map(|oneof| oneof.name().to_owned());
    format!(
        "{:?} {:?} {} = {} json {} oneof {:?} presence {} packed {}{}",
        field.cardinality(),
        field.kind(),
        field.name(),
        field.number(),
        field.json_name(),
        oneof,
        field.supports_presence(),
        field.is_packed(),
        options(&field.options()),
    )
}

fn enum_facts(enumeration: &EnumDescriptor, facts: &mut BTreeSet<String>) {
    let name = enumeration.full_name();
    facts.insert(format!("enum {name}{}", options(&enumeration.options())));
    facts.extend(enumeration.values().map(|value| {
        format!(
            "{name}: {} = {}{}",
            value.name(),
            value.number(),
            options(&value.options())
        )
    }));
}

fn service_facts(service: &ServiceDescriptor, facts: &mut BTreeSet<String>) {
    facts.insert(format!("service {}", service.full_name()));
    facts.extend(service.methods().map(|method| {
        format!(
            "{} ({} stream {}) returns ({} stream {}){}",
            method.full_name(),
            method.input().full_name(),
            method.is_client_streaming(),
            method.output().full_name(),
            method.is_server_streaming(),
            options(&method.options()),
        )
    }));
}

fn options(options: &DynamicMessage) -> String {
    options
        .fields()
        .map(|(field, value)| format!(" [{}={value:?}]", field.name()))
        .collect()
}
