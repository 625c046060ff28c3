//! The shape of the workspace: which crate may use which, where `unsafe` may stand,
//! how long files may grow, whose code comes in under which licence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use carpel_conformance::paths::workspace;

/// What each crate of ours may use of the others; tests and build scripts apart.
const ARROWS: [(&str, &[&str]); 15] = [
    ("carpel-proto", &[]),
    ("carpel-sys", &[]),
    ("carpel-spec", &[]),
    ("carpel-cgroup", &["carpel-sys"]),
    ("carpel-logs", &["carpel-sys"]),
    ("carpel-native", &["carpel-sys"]),
    ("carpel-oci-cli", &["carpel-sys"]),
    (
        "carpel-runtime",
        &[
            "carpel-native",
            "carpel-oci-cli",
            "carpel-cgroup",
            "carpel-logs",
            "carpel-sys",
            "carpel-proto",
        ],
    ),
    ("carpel-failpoint", &[]),
    ("carpel-images", &["carpel-failpoint", "carpel-sys"]),
    ("carpel-network", &["carpel-failpoint", "carpel-sys"]),
    (
        "carpel-shim",
        &[
            "carpel-failpoint",
            "carpel-images",
            "carpel-network",
            "carpel-spec",
            "carpel-cgroup",
            // To ask runtimes what they can do, and to let them forget.
            "carpel-oci-cli",
            // For the descriptors it hands to holders: memory files, mounts, openat2.
            "carpel-sys",
            "carpel-proto",
        ],
    ),
    ("carpel-cli", &["carpel-proto"]),
    ("carpel-conformance", &[]),
    ("carpel-demo-web", &[]),
];

const LICENCES: [&str; 12] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "Unlicense",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

/// Rust files of our own, with their paths from the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(workspace())
        .output()
        .expect("run git");
    let list = String::from_utf8(output.stdout).expect("paths in UTF-8");
    let files: Vec<_> = list
        .lines()
        .filter_map(|path| {
            let text = std::fs::read_to_string(workspace().join(path)).ok()?;
            Some((PathBuf::from(path), text))
        })
        .collect();
    assert!(
        files.len() > 50,
        "only {} source files were found",
        files.len()
    );
    files
}

/// The text without comments and without what stands in quotes.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match (character, rest.peek()) {
            ('/', Some('/')) => while rest.next_if(|&next| next != '\n').is_some() {},
            ('/', Some('*')) => {
                let mut last = ' ';
                for next in rest.by_ref() {
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
            }
            ('\'', Some('"')) => drop(rest.nth(1)),
            ('"', _) => {
                while let Some(next) = rest.next() {
                    match next {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            _ => code.push(character),
        }
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_')
}

#[test]
fn crates_use_only_what_the_design_lets_them() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let ours = metadata.workspace_packages();
    let names: BTreeSet<_> = ours
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let known: BTreeSet<_> = allowed.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, known, "crates and the list in this test");
    for package in ours {
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development || !names.contains(&dependency.name) {
                continue;
            }
            let allowed = allowed[package.name.as_str()];
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} must not use {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn tests_of_the_built_binaries_link_no_crate_under_test() {
    let metadata = metadata();
    let conformance = package(&metadata, "carpel-conformance");
    let ours: Vec<_> = conformance
        .dependencies
        .iter()
        .filter(|dependency| dependency.name.starts_with("carpel-"))
        .map(|dependency| dependency.name.as_str())
        .collect();
    assert_eq!(ours, ["carpel-proto"], "formats only");
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == name)
        .unwrap_or_else(|| panic!("there is no crate {name}"))
}

#[test]
fn nothing_below_runtime_comes_with_an_async_runtime() {
    for member in [
        "carpel-runtime",
        "carpel-native",
        "carpel-sys",
        "carpel-spec",
        "carpel-cgroup",
        "carpel-logs",
    ] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree", "--locked", "-p", member, "-e", "normal", "--prefix", "none",
            ])
            .current_dir(workspace())
            .output()
            .expect("run cargo tree");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let tree = String::from_utf8(output.stdout).expect("names in UTF-8");
        for banned in ["tokio", "tonic", "hyper", "futures-util", "async-trait"] {
            let found = tree
                .lines()
                .any(|line| line.split(' ').next() == Some(banned));
            assert!(!found, "{member} links {banned}");
        }
    }
}

#[test]
fn unsafe_stands_in_one_crate_only_and_each_block_says_why() {
    let mut found = 0;
    for (path, text) in sources() {
        let count = words(&code_only(&text))
            .filter(|word| *word == "unsafe")
            .count();
        if count == 0 {
            continue;
        }
        assert!(
            path.starts_with("runtime/sys"),
            "unsafe in {}",
            path.display()
        );
        let notes = text.matches("SAFETY:").count();
        let functions = code_only(&text).matches("unsafe fn").count();
        assert!(
            notes + functions >= count,
            "{}: {count} unsafe, {notes} notes",
            path.display()
        );
        found += count;
    }
    assert!(
        found > 0,
        "runtime/sys has no unsafe: this test looks in the wrong place"
    );
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}",
            package.name
        );
        let own = manifest.lines().find(|line| line.contains("version ="));
        assert_eq!(
            own, None,
            "{}: versions stand in the workspace's manifest",
            package.name
        );
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}

#[test]
fn programs_begin_in_a_short_file() {
    for path in [
        "shim/src/main.rs",
        "runtime/src/main.rs",
        "shim/cli/src/main.rs",
    ] {
        let text = std::fs::read_to_string(workspace().join(path)).expect(path);
        let lines = text.lines().count();
        assert!(lines <= 40, "{path} has {lines} lines");
    }
}

#[test]
fn no_test_is_left_out_and_nothing_is_left_to_do() {
    for (path, text) in sources() {
        let code = code_only(&text);
        let mut seen = words(&code).zip(words(&code).skip(1));
        assert!(
            !code.contains("#[ignore"),
            "{}: a test is ignored",
            path.display()
        );
        assert!(!code.contains("todo!("), "{}", path.display());
        assert!(!code.contains("unimplemented!("), "{}", path.display());
        assert!(
            !seen.any(|pair| pair == ("macro_rules", "")),
            "{}: a macro",
            path.display()
        );
        if path != Path::new("conformance/tests/architecture.rs") {
            for mark in ["TODO", "FIXME", "XXX"] {
                assert!(!text.contains(mark), "{}: {mark}", path.display());
            }
        }
    }
}

#[test]
fn foreign_code_comes_under_licences_that_are_allowed() {
    let metadata = metadata();
    let mut refused = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.clone().unwrap_or_default();
        if !is_allowed(&licence) {
            refused.push(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    assert!(
        metadata.packages.len() > 100,
        "{} packages",
        metadata.packages.len()
    );
    assert!(refused.is_empty(), "{refused:#?}");
}

/// One of the alternatives must be allowed in all its parts.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" OR ").any(|alternative| {
        alternative.split(" AND ").all(|part| {
            let name = part.split(" WITH ").next().unwrap_or_default().trim();
            LICENCES.contains(&name)
        })
    })
}

#[test]
fn the_rules_of_this_file_notice_what_they_forbid() {
    assert!(is_allowed("MIT OR GPL-3.0"));
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception"));
    assert!(!is_allowed("GPL-3.0-only"));
    assert!(!is_allowed("MIT AND GPL-2.0"));
    assert!(!is_allowed(""));
    let code = code_only("let x = \"unsafe\"; // unsafe\n/* unsafe */ let y = '\"'; unsafe { z }");
    assert_eq!(words(&code).filter(|word| *word == "unsafe").count(), 1);
}
