//! One thing that was looked at, and how it is.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warning,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) topic: &'static str,
    pub(crate) level: Level,
    pub(crate) message: String,
    /// What to do about it; empty when it is well.
    pub(crate) advice: String,
}

/// Lines of one topic.
#[derive(Debug)]
pub(super) struct Lines {
    topic: &'static str,
    pub(super) lines: Vec<Line>,
}

impl Lines {
    pub(super) fn of(topic: &'static str) -> Self {
        let lines = Vec::new();
        Self { topic, lines }
    }

    pub(super) fn ok(&mut self, message: impl Into<String>) {
        self.add(Level::Ok, message.into(), "");
    }

    pub(super) fn warn(&mut self, message: impl Into<String>, advice: &str) {
        self.add(Level::Warning, message.into(), advice);
    }

    pub(super) fn fail(&mut self, message: impl Into<String>, advice: &str) {
        self.add(Level::Failed, message.into(), advice);
    }

    pub(super) fn add(&mut self, level: Level, message: String, advice: &str) {
        self.lines.push(Line {
            topic: self.topic,
            level,
            message,
            advice: advice.to_owned(),
        });
    }
}
