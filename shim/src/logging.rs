//! The daemon's own log, whose level may change while it runs.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Changes the level of the running log.
pub(crate) struct LogLevel(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>);

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogLevel")
    }
}

impl LogLevel {
    pub(crate) fn set(&self, level: &str) -> anyhow::Result<()> {
        (self.0)(filter(level)?)
    }
}

/// Begins to log to standard error.
pub(crate) fn init(level: &str) -> anyhow::Result<LogLevel> {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter(level)?)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    subscriber.init();
    Ok(LogLevel(Box::new(move |filter| {
        handle
            .reload(filter)
            .context("log.level: cannot be changed")
    })))
}

/// `error`, …, `trace`, or a filter as of tracing-subscriber.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .parse(level)
        .with_context(|| format!("log.level: {level:?} is not a filter"))
}
