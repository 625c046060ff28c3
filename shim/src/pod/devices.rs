//! What a container's CDI devices bring, completed by what the host has.

use std::path::Path;
use std::sync::Arc;

use carpel_spec::cdi::Injection;

use super::host::nodes_at;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::Error;

impl Runtime {
    pub(super) async fn inject(&self, names: &[String]) -> Result<Injection, Error> {
        if names.is_empty() {
            return Ok(Injection::default());
        }
        let (cdi, names) = (Arc::clone(&self.parts.cdi), names.to_vec());
        blocking(move || {
            let mut injection = cdi.inject(&names)?;
            for node in injection.nodes.iter_mut().filter(|node| node.needs_host()) {
                let found = nodes_at(Path::new(&node.host_path))?;
                node.found = found.into_iter().find(|found| found.path == node.host_path);
                if node.found.is_none() {
                    return Err(Error::Invalid(format!(
                        "config.CDI_devices: {names:?} need {:?}, which is no device of this host",
                        node.host_path
                    )));
                }
            }
            Ok(injection)
        })
        .await
    }
}
