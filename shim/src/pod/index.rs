//! All pods and containers by id, by unique beginning of an id, and by identity.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::container::Container;
use super::pod::Pod;
use crate::error::Error;

#[derive(Debug, Default)]
pub(super) struct Index {
    inner: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    pods: BTreeMap<String, Arc<Pod>>,
    containers: BTreeMap<String, Arc<Container>>,
    pod_keys: HashMap<String, String>,
    container_keys: HashMap<String, String>,
}

impl Index {
    pub(super) fn add_pod(&self, pod: &Arc<Pod>) {
        let mut tables = self.write();
        tables.pod_keys.insert(pod.key(), pod.id.clone());
        tables.pods.insert(pod.id.clone(), Arc::clone(pod));
    }

    /// Whether it was there.
    pub(super) fn remove_pod(&self, pod: &Pod) -> bool {
        let mut tables = self.write();
        let was_there = tables.pods.remove(&pod.id).is_some();
        let key = pod.key();
        if tables.pod_keys.get(&key) == Some(&pod.id) {
            tables.pod_keys.remove(&key);
        }
        was_there
    }

    pub(super) fn add_container(&self, container: &Arc<Container>) {
        let mut tables = self.write();
        tables
            .container_keys
            .insert(key_of(container), container.id.clone());
        tables
            .containers
            .insert(container.id.clone(), Arc::clone(container));
    }

    /// Whether it was there.
    pub(super) fn remove_container(&self, container: &Container) -> bool {
        let mut tables = self.write();
        let was_there = tables.containers.remove(&container.id).is_some();
        let key = key_of(container);
        if tables.container_keys.get(&key) == Some(&container.id) {
            tables.container_keys.remove(&key);
        }
        was_there
    }

    pub(super) fn pods(&self) -> Vec<Arc<Pod>> {
        self.read().pods.values().cloned().collect()
    }

    pub(super) fn containers(&self) -> Vec<Arc<Container>> {
        self.read().containers.values().cloned().collect()
    }

    pub(super) fn pod(&self, id: &str) -> Result<Arc<Pod>, Error> {
        find(&self.read().pods, id).ok_or_else(|| Error::pod_not_found(id))
    }

    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.read().containers, id).ok_or_else(|| Error::container_not_found(id))
    }

    pub(super) fn pod_by_key(&self, key: &str) -> Option<Arc<Pod>> {
        let tables = self.read();
        tables
            .pod_keys
            .get(key)
            .and_then(|id| tables.pods.get(id))
            .cloned()
    }

    pub(super) fn container_by_key(&self, key: &str) -> Option<Arc<Container>> {
        let tables = self.read();
        tables
            .container_keys
            .get(key)
            .and_then(|id| tables.containers.get(id))
            .cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(container: &Container) -> String {
    container_key(
        &container.pod_id,
        &container.config.name,
        container.config.attempt,
    )
}

/// Who a container is to a client that asks for it again (CRI ContainerMetadata).
pub(super) fn container_key(pod_id: &str, name: &str, attempt: u32) -> String {
    format!("{pod_id}/{name}/{attempt}")
}

/// By whole id, or by a beginning that only one id has.
fn find<T>(table: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if id.is_empty() {
        return None;
    }
    if let Some(exact) = table.get(id) {
        return Some(Arc::clone(exact));
    }
    let mut matches = table
        .range(id.to_owned()..)
        .take_while(|(key, _)| key.starts_with(id));
    match (matches.next(), matches.next()) {
        (Some((_, only)), None) => Some(Arc::clone(only)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::find;

    #[test]
    fn a_unique_beginning_is_enough_and_an_ambiguous_one_is_not() {
        let table: BTreeMap<String, Arc<u8>> = [("abc", 1), ("abd", 2), ("b", 3)]
            .map(|(k, v)| (k.to_owned(), Arc::new(v)))
            .into();
        assert_eq!(find(&table, "abc").as_deref(), Some(&1));
        assert_eq!(find(&table, "abd").as_deref(), Some(&2));
        assert_eq!(find(&table, "b").as_deref(), Some(&3));
        assert_eq!(find(&table, "ab"), None);
        assert_eq!(find(&table, "c"), None);
        assert_eq!(find(&table, ""), None);
    }
}
