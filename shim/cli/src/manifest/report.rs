//! The mistakes found in a manifest, all of them at once.

use std::cell::RefCell;
use std::fmt;

use super::tree::At;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) at: At,
    /// As `spec.containers[0].image`; empty for the document itself.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line > 0 {
            write!(f, "{}:{}: ", self.at.line, self.at.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects mistakes while a document is read, so that one run shows them all.
#[derive(Debug, Default)]
pub(crate) struct Report {
    mistakes: RefCell<Vec<Mistake>>,
}

impl Report {
    pub(crate) fn add(&self, at: At, path: impl Into<String>, message: impl Into<String>) {
        let mistake = Mistake {
            at,
            path: path.into(),
            message: message.into(),
        };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Every mistake, in the order of the text.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.at);
        mistakes
    }
}

/// A value that remembers its place, for checks made after it was read.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) at: At,
    pub(crate) path: String,
}

impl<T> Placed<T> {
    pub(crate) fn wrong(&self, report: &Report, message: impl Into<String>) {
        report.add(self.at, self.path.clone(), message);
    }

    /// Reports what `fault` finds in the value.
    pub(crate) fn check(&self, report: &Report, fault: impl FnOnce(&T) -> Option<String>) {
        if let Some(message) = fault(&self.value) {
            self.wrong(report, message);
        }
    }
}
