//! A configuration file and its drop-ins, merged key by key.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::de::{DeTable, DeValue};

use super::Config;

/// A configuration, and where each key of it was set last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) origins: Origins,
}

/// By dotted key; keys that no file sets are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins(BTreeMap<String, Origin>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    file: PathBuf,
    line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Origins {
    pub(crate) fn of(&self, key: &str) -> Option<&Origin> {
        self.0.get(key)
    }

    /// Of the key that a complaint begins with: `network.bridge.mtu: 7 is …`.
    fn of_complaint(&self, text: &str) -> Option<&Origin> {
        let begins = |key: &str| {
            text.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with([':', '.', '[', ' ']))
        };
        self.0
            .iter()
            .filter(|(key, _)| begins(key))
            .max_by_key(|(key, _)| key.len())
            .map(|(_, origin)| origin)
    }
}

/// Reads `path`, then `*.toml` of the directory beside it (`config.toml` has
/// `config.d`) in the order of their names. Tables are merged key by key, anything
/// else is replaced.
pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    let mut files = vec![path.to_owned()];
    files.extend(drop_ins(&path.with_extension("d"))?);
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read configuration {}", file.display()))?;
        texts.push((file, text));
    }
    merge(&texts)
}

fn drop_ins(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let what = || format!("cannot read drop-in directory {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(what),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(what)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

pub(super) fn merge(texts: &[(PathBuf, String)]) -> anyhow::Result<Loaded> {
    let mut all = toml::Table::new();
    let mut origins = Origins::default();
    for (file, text) in texts {
        let named = || format!("configuration {}", file.display());
        // Alone first, for a mistake has a line only in its own file.
        toml::from_str::<Config>(text).with_context(named)?;
        let table: toml::Table = text.parse().with_context(named)?;
        let spanned = DeTable::parse(text).with_context(named)?;
        note_origins(&mut origins, file, text, "", spanned.get_ref());
        merge_table(&mut all, table);
    }
    let config: Config = all.try_into().context("configuration")?;
    config.check().map_err(|error| {
        let complaint = format!("{error:#}");
        match origins.of_complaint(&complaint) {
            Some(origin) => anyhow::anyhow!("configuration {origin}: {complaint}"),
            None => anyhow::anyhow!("configuration: {complaint}"),
        }
    })?;
    Ok(Loaded { config, origins })
}

fn merge_table(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge_table(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn note_origins(origins: &mut Origins, file: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", quoted(name.get_ref()));
        if let DeValue::Table(inner) = value.get_ref() {
            note_origins(origins, file, text, &format!("{key}."), inner);
            continue;
        }
        let line = text[..name.span().start].matches('\n').count() + 1;
        let file = file.to_owned();
        origins.0.insert(key, Origin { file, line });
    }
}

/// A key as it stands in a file: bare where it may.
pub(crate) fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// All keys with their values, dotted.
pub(crate) fn flatten(config: &Config) -> anyhow::Result<BTreeMap<String, toml::Value>> {
    let mut keys = BTreeMap::new();
    let table = toml::Table::try_from(config)?;
    flatten_into(&mut keys, "", table);
    Ok(keys)
}

fn flatten_into(keys: &mut BTreeMap<String, toml::Value>, prefix: &str, table: toml::Table) {
    for (name, value) in table {
        let key = format!("{prefix}{}", quoted(&name));
        match value {
            toml::Value::Table(inner) => flatten_into(keys, &format!("{key}."), inner),
            value => drop(keys.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Loaded, flatten, load, merge};

    fn merged(texts: &[(&str, &str)]) -> anyhow::Result<Loaded> {
        let texts: Vec<_> = texts
            .iter()
            .map(|(file, text)| (PathBuf::from(file), (*text).to_owned()))
            .collect();
        merge(&texts)
    }

    #[test]
    fn tables_are_merged_and_arrays_replaced() {
        let loaded = merged(&[
            (
                "a.toml",
                "[network.bridge]\nmtu = 1400\npod_cidrs = [\"10.1.0.0/16\", \"fd00::/64\"]\n\
                 [registries.\"a.example\"]\ninsecure = true\n",
            ),
            (
                "b.toml",
                "[network.bridge]\npod_cidrs = [\"10.2.0.0/16\"]\n\
                 [registries.\"b.example\"]\nmirrors = [\"http://127.0.0.1:5000\"]\n",
            ),
        ])
        .unwrap();
        let bridge = &loaded.config.network.bridge;
        assert_eq!((bridge.mtu, bridge.pod_cidrs.len()), (1400, 1));
        assert_eq!(loaded.config.registries.len(), 2);
        let origin = |key: &str| loaded.origins.of(key).unwrap().to_string();
        assert_eq!(origin("network.bridge.mtu"), "a.toml:2");
        assert_eq!(origin("network.bridge.pod_cidrs"), "b.toml:2");
        assert_eq!(origin("registries.\"a.example\".insecure"), "a.toml:5");
        assert!(loaded.origins.of("log.level").is_none());
    }

    #[test]
    fn a_mistake_is_told_with_its_file_line_and_key() {
        let cases = [
            ("[log]\n\nlevle = \"info\"\n", "line 3", "levle"),
            ("[network.bridge]\nmtu = \"big\"\n", "line 2", "mtu"),
            ("[log\n", "line 1", "log"),
            ("\n[paths]\nroot = \"var\"\n", "b.toml:3", "paths.root"),
            (
                "[network.bridge]\nname = \"a/b\"\n",
                "b.toml:2",
                "network.bridge.name",
            ),
        ];
        for (text, line, key) in cases {
            let error = merged(&[("a.toml", "[log]\nlevel = \"info\"\n"), ("b.toml", text)]);
            let error = format!("{:#}", error.unwrap_err());
            for part in ["b.toml", line, key] {
                assert!(error.contains(part), "no {part:?} in {error}");
            }
        }
    }

    #[test]
    fn drop_ins_are_read_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("config.toml");
        let drop_ins = dir.path().join("config.d");
        std::fs::write(&main, "[log]\nlevel = \"warn\"\n").unwrap();
        assert_eq!(load(&main).unwrap().config.log.level, "warn");
        std::fs::create_dir(&drop_ins).unwrap();
        for (file, level) in [
            ("20-b.toml", "debug"),
            ("10-a.toml", "trace"),
            ("z.txt", "no"),
        ] {
            std::fs::write(drop_ins.join(file), format!("[log]\nlevel = {level:?}\n")).unwrap();
        }
        let loaded = load(&main).unwrap();
        assert_eq!(loaded.config.log.level, "debug");
        let origin = loaded.origins.of("log.level").unwrap().to_string();
        assert!(origin.ends_with("config.d/20-b.toml:2"), "{origin}");
    }

    #[test]
    fn keys_are_dotted_and_quoted_where_they_must_be() {
        let loaded = merged(&[("a", "[registries.\"x.y:1\"]\ninsecure = true\n")]).unwrap();
        let keys = flatten(&loaded.config).unwrap();
        assert!(keys.contains_key("registries.\"x.y:1\".insecure"));
        assert!(keys.contains_key("network.bridge.mtu"));
    }
}
