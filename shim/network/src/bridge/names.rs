//! Names of the host's ends of pods' cables.

/// Starts every name, so that leftovers are known as ours.
pub(super) const PREFIX: &str = "cpl";

/// The name for a pod, 15 letters; other `attempt`s give others, should two pods
/// want the same.
pub(super) fn host_interface(pod_id: &str, attempt: u32) -> String {
    let mut hash = fnv1a(0xcbf2_9ce4_8422_2325, pod_id.as_bytes());
    if attempt > 0 {
        hash = fnv1a(hash, &attempt.to_be_bytes());
    }
    format!("{PREFIX}{:012x}", hash >> 16)
}

/// Pods' ids make file names: nothing that leaves a directory or hides in it.
pub(super) fn is_pod_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&id.len()) && !id.starts_with('.') && id.chars().all(plain)
}

/// The same in every version of the program, for records outlive it.
fn fnv1a(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::bridge::config::MAX_LINK_NAME;

    #[test]
    fn names_fit_and_differ() {
        let names: HashSet<_> = (0..1000)
            .flat_map(|pod| (0..4).map(move |i| host_interface(&format!("pod-{pod}"), i)))
            .collect();
        assert_eq!(names.len(), 4000);
        assert!(
            names
                .iter()
                .all(|n| n.len() == MAX_LINK_NAME && n.starts_with(PREFIX))
        );
    }

    #[test]
    fn names_stay_the_same_between_versions() {
        assert_eq!(host_interface("a", 0), "cplaf63dc4c8601");
    }

    #[test]
    fn ids_are_plain_file_names() {
        assert!(is_pod_id("0123abcd"));
        for bad in ["", ".", "..", "a/b", "a b", ".hidden", "a\0b"] {
            assert!(!is_pod_id(bad), "{bad:?}");
        }
        assert!(!is_pod_id(&"a".repeat(129)));
    }
}
