//! Label selectors and id filters of list calls.

use std::collections::{BTreeMap, HashMap};

/// Whether `labels` has every pair that `wanted` asks for.
pub(super) fn labels_match(
    wanted: &HashMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether an id is meant by what a client gave: nothing, an id, or its beginning.
pub(super) fn id_matches(wanted: &str, id: &str) -> bool {
    id.starts_with(wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::{id_matches, labels_match};

    #[test]
    fn every_wanted_label_must_be_there_with_its_value() {
        let labels: BTreeMap<_, _> = [("a", "1"), ("b", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let wanted = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert!(labels_match(&wanted(&[]), &labels));
        assert!(labels_match(&wanted(&[("a", "1")]), &labels));
        assert!(!labels_match(&wanted(&[("a", "2")]), &labels));
        assert!(!labels_match(&wanted(&[("a", "1"), ("c", "3")]), &labels));
    }

    #[test]
    fn an_id_is_meant_by_its_beginning_and_by_nothing() {
        assert!(id_matches("", "abc"));
        assert!(id_matches("ab", "abc"));
        assert!(!id_matches("b", "abc"));
    }
}
