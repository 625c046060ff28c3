//! Which images the kubelet is told to spare when it makes room.

use crate::engine::Error;
use crate::reference::{ImageQuery, Reference};

/// Names, ids, and patterns of either.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Vec<String>);

impl Pinned {
    /// Whole names are normalised as in a pull; a pattern is taken as it is, and is
    /// to fit a whole normalised name.
    pub(super) fn parse(patterns: &[String]) -> Result<Self, Error> {
        let normal = |text: &String| -> Result<String, Error> {
            if text.contains('*') || matches!(ImageQuery::parse(text)?, ImageQuery::Id(_)) {
                return Ok(text.clone());
            }
            Ok(Reference::parse(text)?.to_string())
        };
        patterns
            .iter()
            .map(normal)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| is_match(pattern, name))
    }
}

/// `*` stands for any text, slashes included. Each star takes as little as it can,
/// and never needs to take more later, so this is quick for any pattern.
fn is_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let Some((middle, last)) = rest.rsplit_once('*') else {
        return text.ends_with(rest);
    };
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "anything/at:all"),
            ("registry.k8s.io/pause*", "registry.k8s.io/pause:3.9"),
            ("*pause*", "registry.k8s.io/pause:3.9"),
            ("*/pause:*", "registry.k8s.io/pause:3.9"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "abc"),
        ] {
            assert!(is_match(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "b"),
            ("a*", "ba"),
            ("*a", "ab"),
            ("a*a", "a"),
            ("a*b*a", "aba-"),
            ("ab*bc", "abc"),
            ("*x*", "abc"),
        ] {
            assert!(!is_match(pattern, text), "{pattern} {text}");
        }
        let long = "a".repeat(5000);
        assert!(!is_match(&"a*".repeat(200).replace("a*a*", "*a*b"), &long));
    }

    #[test]
    fn whole_names_are_normalised_and_must_be_names() {
        let pinned = Pinned::parse(&["busybox".to_owned()]).unwrap();
        assert!(pinned.fits("docker.io/library/busybox:latest"));
        assert!(Pinned::parse(&["Not A Name".to_owned()]).is_err());
    }
}
