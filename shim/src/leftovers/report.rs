//! What was found, by kind.

use std::collections::BTreeMap;

use serde::Serialize;

/// Of what sort a leftover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Has a record, but its holder ended by itself and nobody has stopped it yet.
    Pod,
    Process,
    Mount,
    Namespace,
    Cgroup,
    Link,
    Rule,
    Address,
    Rootfs,
    RunDir,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Pod,
        Self::Process,
        Self::Mount,
        Self::Namespace,
        Self::Cgroup,
        Self::Link,
        Self::Rule,
        Self::Address,
        Self::Rootfs,
        Self::RunDir,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Process => "process",
            Self::Mount => "mount",
            Self::Namespace => "namespace",
            Self::Cgroup => "cgroup",
            Self::Link => "link",
            Self::Rule => "rule",
            Self::Address => "address",
            Self::Rootfs => "rootfs",
            Self::RunDir => "run_dir",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Leftover {
    pub(crate) kind: Kind,
    /// Process id, path, device, address.
    pub(crate) name: String,
    /// What is known of it, for people.
    pub(crate) what: String,
}

impl Leftover {
    pub(crate) fn new(kind: Kind, name: impl ToString, what: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.to_string(),
            what: what.into(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) leftovers: Vec<Leftover>,
    /// Where we could not look, and why.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// How many of each kind, those with none too.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts: BTreeMap<_, _> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for leftover in &self.leftovers {
            *counts.entry(leftover.kind).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Leftover, Report};

    #[test]
    fn every_kind_is_counted() {
        let report = Report {
            leftovers: vec![Leftover::new(Kind::Link, "cpl0", "")],
            failures: Vec::new(),
        };
        let counts = report.counts();
        assert_eq!((counts.len(), counts[&Kind::Link]), (Kind::ALL.len(), 1));
        assert_eq!(counts.values().sum::<usize>(), 1);
        let json = serde_json::to_value(Kind::RunDir).unwrap();
        assert_eq!(json, Kind::RunDir.word());
    }
}
