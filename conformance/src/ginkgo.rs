//! Reports of critest, and what we expect of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Skipped,
    /// With what was wrong.
    Failed(String),
}

/// Outcome of each spec by its full name.
#[derive(Debug, Default)]
pub struct Report {
    specs: BTreeMap<String, Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Report {
    /// Reads what `-ginkgo.json-report` wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("report {}", path.display()))
    }

    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let suites: Vec<Suite> = serde_json::from_slice(text)?;
        let mut report = Self::default();
        for spec in suites
            .into_iter()
            .filter_map(|suite| suite.spec_reports)
            .flatten()
        {
            let message = spec
                .failure
                .map(|failure| failure.message)
                .unwrap_or_default();
            let outcome = match spec.state.as_str() {
                "passed" => Outcome::Passed,
                "skipped" | "pending" => Outcome::Skipped,
                state => Outcome::Failed(format!("{state}: {message}")),
            };
            if spec.leaf_node_type == "It" {
                let mut names = spec.container_hierarchy_texts.unwrap_or_default();
                names.push(spec.leaf_node_text);
                report.specs.insert(names.join(" "), outcome);
            } else if let Outcome::Failed(message) = outcome {
                bail!("{}: {message}", spec.leaf_node_type);
            }
        }
        Ok(report)
    }

    pub fn specs(&self) -> &BTreeMap<String, Outcome> {
        &self.specs
    }

    pub fn passed(&self) -> usize {
        self.specs
            .values()
            .filter(|outcome| **outcome == Outcome::Passed)
            .count()
    }

    pub fn skipped(&self) -> usize {
        self.specs
            .values()
            .filter(|outcome| **outcome == Outcome::Skipped)
            .count()
    }

    pub fn failed(&self) -> usize {
        self.specs.len() - self.passed() - self.skipped()
    }
}

/// Specs that are known to fail, with the reason.
#[derive(Debug, Default)]
pub struct Expectations {
    failing: BTreeMap<String, String>,
}

impl Expectations {
    /// One spec a line, ` :: `, the reason; `#` begins a comment line.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut failing = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let (name, reason) = line
                .split_once(" :: ")
                .with_context(|| format!("no reason in {line:?}"))?;
            if failing
                .insert(name.trim().to_owned(), reason.trim().to_owned())
                .is_some()
            {
                bail!("{name:?} is listed twice");
            }
        }
        Ok(Self { failing })
    }

    /// Everything in which the report differs; empty when it is as expected.
    pub fn differences(&self, report: &Report) -> Vec<String> {
        let mut differences = Vec::new();
        let mut met = BTreeSet::new();
        for (name, outcome) in &report.specs {
            let listed = self.failing.contains_key(name);
            if listed {
                met.insert(name.as_str());
            }
            match outcome {
                Outcome::Failed(message) if !listed => {
                    differences.push(format!("failed and is not listed: {name}: {message}"));
                }
                Outcome::Passed if listed => {
                    differences.push(format!("passed and is listed as failing: {name}"));
                }
                Outcome::Skipped if listed => {
                    differences.push(format!("was skipped and is listed as failing: {name}"));
                }
                _ => {}
            }
        }
        let unknown = self
            .failing
            .keys()
            .filter(|name| !met.contains(name.as_str()));
        differences.extend(unknown.map(|name| format!("is listed and does not exist: {name}")));
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::{Expectations, Report};

    const REPORT: &str = r#"[{"SpecReports":[
        {"ContainerHierarchyTexts":["A","b"],"LeafNodeText":"works","LeafNodeType":"It","State":"passed"},
        {"ContainerHierarchyTexts":["A"],"LeafNodeText":"breaks","LeafNodeType":"It","State":"failed",
         "Failure":{"Message":"no"}},
        {"ContainerHierarchyTexts":null,"LeafNodeText":"","LeafNodeType":"BeforeSuite","State":"passed"},
        {"ContainerHierarchyTexts":["A"],"LeafNodeText":"waits","LeafNodeType":"It","State":"skipped"}]}]"#;

    fn differences(list: &str) -> Vec<String> {
        let report = Report::parse(REPORT.as_bytes()).unwrap();
        assert_eq!(
            (report.passed(), report.failed(), report.skipped()),
            (1, 1, 1)
        );
        Expectations::parse(list).unwrap().differences(&report)
    }

    #[test]
    fn only_the_listed_failures_are_fine() {
        assert!(differences("# why\nA breaks :: not built yet\n").is_empty());
        assert!(differences("")[0].contains("not listed: A breaks: failed: no"));
        assert!(differences("A breaks :: x\nA b works :: y\n")[0].contains("passed"));
        assert!(differences("A breaks :: x\nA gone :: y\n")[0].contains("does not exist"));
    }

    #[test]
    fn a_listed_failure_needs_a_reason() {
        assert!(Expectations::parse("A breaks\n").is_err());
    }
}
