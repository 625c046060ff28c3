//! SIGHUP: reads the configuration again and takes over what may change meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use carpel_images::Store;

use crate::backends;
use crate::config::{Config, flatten, load};
use crate::logging::LogLevel;
use crate::pod::Runtime;

/// Sections that a reload takes over; all else waits for a restart.
const LIVE: [&str; 4] = ["log", "registries", "handlers", "runtime"];

#[derive(Debug)]
pub(crate) struct Reloader {
    /// None: there is no file to read.
    pub(crate) path: Option<PathBuf>,
    /// The configuration in force.
    pub(crate) current: Arc<ArcSwap<Config>>,
    pub(crate) log: LogLevel,
    pub(crate) store: Arc<Store>,
    pub(crate) runtime: Arc<Runtime>,
}

impl Reloader {
    /// Takes over a valid configuration; of one that is not, nothing.
    pub(crate) fn reload(&self) {
        match self.take_over() {
            Ok(change) => {
                tracing::info!(changed = ?change.live, "configuration reloaded");
                if !change.later.is_empty() {
                    tracing::warn!(keys = ?change.later, "these keys need a restart");
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the old configuration stays in force");
            }
        }
    }

    fn take_over(&self) -> anyhow::Result<Change> {
        let Some(path) = &self.path else {
            anyhow::bail!("the daemon was started without a configuration file");
        };
        let new = load(path)?.config;
        let old = self.current.load_full();
        let change = Change::between(&old, &new)?;
        let next = Config {
            log: new.log,
            registries: new.registries,
            handlers: new.handlers,
            runtime: new.runtime,
            ..(*old).clone()
        };
        self.store.set_registries(backends::registries(&next))?;
        if next.log != old.log {
            self.log.set(&next.log.level)?;
        }
        self.runtime.handlers().replace(&next);
        self.current.store(Arc::new(next));
        Ok(change)
    }
}

/// Which keys differ.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    live: Vec<String>,
    later: Vec<String>,
}

impl Change {
    fn between(old: &Config, new: &Config) -> anyhow::Result<Self> {
        let (old, new) = (flatten(old)?, flatten(new)?);
        let mut change = Self::default();
        let keys = old
            .keys()
            .chain(new.keys().filter(|key| !old.contains_key(*key)));
        for key in keys.filter(|key| old.get(*key) != new.get(*key)) {
            let section = key.split('.').next().unwrap_or_default();
            if LIVE.contains(&section) {
                change.live.push(key.clone());
            } else {
                change.later.push(key.clone());
            }
        }
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::Change;
    use crate::config::Config;

    #[test]
    fn keys_that_wait_for_a_restart_are_told_apart() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = "debug".into();
        new.registries
            .insert("a.example".into(), Default::default());
        new.network.bridge.mtu = 1400;
        new.paths.root = "/elsewhere".into();
        let change = Change::between(&old, &new).unwrap();
        assert_eq!(change.later, ["network.bridge.mtu", "paths.root"]);
        assert!(change.live.contains(&"log.level".to_owned()));
        assert!(change.live.iter().any(|key| key.contains("a.example")));
        assert_eq!(Change::between(&old, &old).unwrap(), Change::default());
    }
}
