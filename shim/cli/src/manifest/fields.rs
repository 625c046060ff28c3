//! Reads the fields of a mapping, one by one, and knows which ones nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::refused::Refused;
use super::report::{Placed, Report};
use super::tree::{At, Key, Node, Value};
use crate::suggest;

/// A mapping being read. `null` counts as absent, as in Kubernetes.
pub(crate) struct Fields<'a> {
    at: At,
    path: String,
    entries: &'a [(Key, Node)],
    asked: RefCell<Vec<&'static str>>,
    report: &'a Report,
}

impl<'a> Fields<'a> {
    /// `None`, with a mistake reported, when the node is no mapping.
    pub(crate) fn of(node: &'a Node, path: impl Into<String>, report: &'a Report) -> Option<Self> {
        let path = path.into();
        let Value::Map(entries) = &node.value else {
            report.add(
                node.at,
                path,
                format!("a mapping belongs here, not {}", node.value.kind()),
            );
            return None;
        };
        Some(Self {
            at: node.at,
            path,
            entries,
            asked: RefCell::default(),
            report,
        })
    }

    pub(crate) fn report(&self) -> &'a Report {
        self.report
    }

    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// The path of a field of this mapping.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(crate) fn node(&self, name: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(name);
        self.entries
            .iter()
            .find(|(key, node)| key.name == name && !matches!(node.value, Value::Null))
            .map(|(_, node)| node)
    }

    fn wrong(&self, name: &str, node: &Node, message: impl Into<String>) {
        self.report.add(node.at, self.path(name), message);
    }

    fn expected(&self, name: &str, node: &Node, what: &str) {
        self.wrong(
            name,
            node,
            format!("{what} belongs here, not {}", node.value.kind()),
        );
    }

    fn placed<T>(&self, name: &str, node: &Node, value: T) -> Placed<T> {
        Placed {
            value,
            at: node.at,
            path: self.path(name),
        }
    }

    /// Reports that `name` must be given.
    pub(crate) fn missing(&self, name: &str) {
        self.report.add(self.at, self.path(name), "is missing");
    }

    pub(crate) fn text(&self, name: &'static str) -> Option<Placed<String>> {
        let node = self.node(name)?;
        let value = text_of(node)
            .inspect_err(|what| self.expected(name, node, what))
            .ok()?;
        Some(self.placed(name, node, value))
    }

    /// A text that must be there and not be empty.
    pub(crate) fn required_text(&self, name: &'static str) -> Option<Placed<String>> {
        if self.node(name).is_none() {
            self.missing(name);
            return None;
        }
        let text = self.text(name)?;
        if text.value.is_empty() {
            text.wrong(self.report, "is empty");
            return None;
        }
        Some(text)
    }

    /// One of a closed set of words.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<Placed<T>> {
        let text = self.text(name)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(Placed {
                value: *value,
                at: text.at,
                path: text.path,
            });
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = match suggest::nearest(&text.value, known.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("one of {}", known.join(", ")),
        };
        text.wrong(
            self.report,
            format!("{:?} is not known; {hint}", text.value),
        );
        None
    }

    pub(crate) fn flag(&self, name: &'static str) -> Option<Placed<bool>> {
        let node = self.node(name)?;
        let Value::Bool(value) = node.value else {
            self.expected(name, node, "true or false");
            return None;
        };
        Some(self.placed(name, node, value))
    }

    pub(crate) fn is_set(&self, name: &'static str) -> bool {
        self.flag(name).is_some_and(|flag| flag.value)
    }

    /// A whole number within `range`; `what` is what the number should have been.
    pub(crate) fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<i64>,
        what: &str,
    ) -> Option<Placed<i64>> {
        let node = self.node(name)?;
        let Value::Int(given) = node.value else {
            self.expected(name, node, "a whole number");
            return None;
        };
        match i64::try_from(given) {
            Ok(value) if range.contains(&value) => Some(self.placed(name, node, value)),
            _ => {
                let (low, high) = (range.start(), range.end());
                self.wrong(name, node, format!("{given} is not {what} ({low}-{high})"));
                None
            }
        }
    }

    /// The items of a list with their paths; none when absent.
    pub(crate) fn list(&self, name: &'static str) -> Vec<(String, &'a Node)> {
        let Some(node) = self.node(name) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.expected(name, node, "a list");
            return Vec::new();
        };
        let path = self.path(name);
        items
            .iter()
            .enumerate()
            .map(|(i, item)| (format!("{path}[{i}]"), item))
            .collect()
    }

    pub(crate) fn texts(&self, name: &'static str) -> Vec<Placed<String>> {
        let items = self.list(name).into_iter();
        items
            .filter_map(|(path, node)| self.item_text(path, node))
            .collect()
    }

    fn item_text(&self, path: String, node: &Node) -> Option<Placed<String>> {
        match text_of(node) {
            Ok(value) => Some(Placed {
                value,
                at: node.at,
                path,
            }),
            Err(what) => {
                let message = format!("{what} belongs here, not {}", node.value.kind());
                self.report.add(node.at, path, message);
                None
            }
        }
    }

    /// A mapping from names to texts, as labels are.
    pub(crate) fn text_map(&self, name: &'static str) -> BTreeMap<String, Placed<String>> {
        let Some(node) = self.node(name) else {
            return BTreeMap::new();
        };
        let Value::Map(entries) = &node.value else {
            self.expected(name, node, "a mapping");
            return BTreeMap::new();
        };
        let path = self.path(name);
        let texts = entries.iter().filter_map(|(key, node)| {
            let text = self.item_text(format!("{path}[{}]", key.name), node)?;
            Some((key.name.clone(), text))
        });
        texts.collect()
    }

    /// The raw entries of a mapping field.
    pub(crate) fn entries(&self, name: &'static str) -> &'a [(Key, Node)] {
        match self.node(name).map(|node| (node, &node.value)) {
            None => &[],
            Some((_, Value::Map(entries))) => entries,
            Some((node, _)) => {
                self.expected(name, node, "a mapping");
                &[]
            }
        }
    }

    pub(crate) fn fields(&self, name: &'static str) -> Option<Self> {
        Fields::of(self.node(name)?, self.path(name), self.report)
    }

    /// Reports every field that nobody asked for: by reason when it is one that something
    /// else in Kubernetes serves, else as unknown.
    pub(crate) fn finish(self, refused: &[Refused]) {
        let asked = self.asked.borrow();
        for (key, node) in self.entries {
            let name = key.name.as_str();
            if asked.contains(&name) || matches!(node.value, Value::Null) {
                continue;
            }
            let known = refused.iter().find(|refused| refused.field == name);
            let message = match known {
                Some(refused) => refused.to_string(),
                None => {
                    let refused = refused.iter().map(|refused| refused.field);
                    unknown(name, asked.iter().copied().chain(refused))
                }
            };
            self.report.add(key.at, self.path(name), message);
        }
    }
}

fn unknown<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    match suggest::nearest(name, candidates) {
        Some(meant) => format!("unknown field; did you mean {meant}?"),
        None => "unknown field".to_owned(),
    }
}

/// Kubernetes takes no number or boolean for a string; neither do we, but we say what to do.
fn text_of(node: &Node) -> Result<String, &'static str> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Err("a string (put it in quotes)"),
        Value::Null | Value::List(_) | Value::Map(_) => Err("a string"),
    }
}
