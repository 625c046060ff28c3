//! Image names: what a user writes, made into one canonical form.

mod digest;

use std::fmt;
use std::str::FromStr;

pub use digest::{Algorithm, Digest};

use crate::engine::Error;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
/// The longest text that can still be a reference: name, tag, and a sha512 digest.
const TEXT_MAX: usize = NAME_MAX + 1 + TAG_MAX + 1 + 7 + 128;
const ID_HEX: usize = 64;
const PREFIX_MIN: usize = 3;

/// A normalised image name. Has a tag or a digest, never both, never neither:
/// where both are written the digest wins, where neither is the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host, and port if one was written: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path within the registry: `library/busybox`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::try_parse(text).map_err(|why| invalid("image reference", text, why))
    }

    fn try_parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > TEXT_MAX {
            return Err("is too long");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has blanks, control characters or characters outside ASCII");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::try_parse(digest)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, repository) = split_name(name)?;
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err("name is longer than 255 characters");
        }
        let tag = match (&digest, tag) {
            (Some(_), _) => None,
            (None, Some(tag)) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// `registry/repository`, without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same name by `digest`: what a repo digest is.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// Tag or digest, as it stands in a registry's URL.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// What a status or removal query may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageQuery {
    /// A whole id.
    Id(Digest),
    /// A name.
    Reference(Reference),
    /// A name, or else (when no image has it) the first digits of an id.
    Either {
        reference: Reference,
        prefix: String,
    },
}

impl ImageQuery {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if !is_lower_hex(digits) || digits.len() < PREFIX_MIN || digits.len() > ID_HEX {
            return Reference::parse(text).map(Self::Reference);
        }
        if digits.len() == ID_HEX {
            return Digest::parse(&format!("sha256:{digits}")).map(Self::Id);
        }
        let reference = Reference::parse(text)?;
        Ok(Self::Either {
            reference,
            prefix: digits.to_owned(),
        })
    }
}

/// The tag starts at the last colon, unless a slash follows: that one begins a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    if tag.is_empty() || tag.len() > TAG_MAX {
        return Err("tag is empty or longer than 128 characters");
    }
    if tag.starts_with(['.', '-']) {
        return Err("tag begins with a dot or a dash");
    }
    if !tag
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        return Err("tag has characters other than letters, digits, '_', '.' and '-'");
    }
    Ok(())
}

fn split_name(name: &str) -> Result<(String, String), &'static str> {
    let (registry, path) = match name.split_once('/') {
        Some((host, path)) if looks_like_host(host) => (host, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    if is_lower_hex(name) && name.len() == ID_HEX {
        return Err("is an image id, not a name");
    }
    let registry = if registry == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        registry
    };
    check_host(registry)?;
    for component in path.split('/') {
        check_component(component)?;
    }
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if official {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Ok((registry.to_owned(), repository))
}

/// The first part of a name is a host when no repository could be called that.
fn looks_like_host(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':', '['])
        || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_host(text: &str) -> Result<(), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("registry address has no ']'")?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "registry is not an IPv6 address between '[' and ']'")?;
        return match port.strip_prefix(':') {
            Some(port) => check_port(port),
            None if port.is_empty() => Ok(()),
            None => Err("registry has text after ']'"),
        };
    }
    let host = match text.split_once(':') {
        Some((host, port)) => {
            check_port(port)?;
            host
        }
        None => text,
    };
    for label in host.split('.') {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if label.is_empty() || !inner || label.starts_with('-') || label.ends_with('-') {
            return Err("registry is not a host name");
        }
    }
    Ok(())
}

fn check_port(text: &str) -> Result<(), &'static str> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(()),
        _ => Err("registry port is not a number from 1 to 65535"),
    }
}

/// Runs of lower-case letters and digits, between them `.`, `_`, `__` or dashes.
fn check_component(text: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if text.is_empty() {
        return Err("repository has an empty part");
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository must be lower case");
    }
    if !text
        .bytes()
        .all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'))
    {
        return Err("repository has characters other than a-z, 0-9, '.', '_' and '-'");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err("part of the repository begins or ends with a separator");
    }
    let runs = text.split(|c: char| c.is_ascii_alphanumeric());
    for run in runs.filter(|run| !run.is_empty()) {
        let dashes = run.bytes().all(|b| b == b'-');
        if !dashes && !matches!(run, "." | "_" | "__") {
            return Err("repository has separators in a row");
        }
    }
    Ok(())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn invalid(what: &str, text: &str, why: &str) -> Error {
    const SHOWN: usize = 100;
    let shown: String = text.chars().take(SHOWN).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    Error::Invalid {
        what: format!("{what} {shown:?}{cut}"),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:9700a4ffc9ddaa5ab8e15ca5ba7b6c4ba1d0a6e5a1ba1ab1e5a2a8eb1a1a66bf";

    fn shown(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    fn refused(text: &str) -> String {
        let error = Reference::parse(text).unwrap_err();
        assert!(
            matches!(error, Error::Invalid { .. }),
            "{text:?} gave {error:?}"
        );
        error.to_string()
    }

    #[test]
    fn short_names_are_filled_in() {
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000/x/y:T", "localhost:5000/x/y:T"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("HOST/x", "HOST/x:latest"),
            ("a.b-c.d/e__f/g-----h.i", "a.b-c.d/e__f/g-----h.i:latest"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn a_digest_drops_the_tag() {
        let want = format!("docker.io/library/busybox@{D}");
        assert_eq!(shown(&format!("busybox@{D}")), want);
        let both = Reference::parse(&format!("busybox:1.36@{D}")).unwrap();
        assert_eq!((both.to_string(), both.tag), (want, None));
    }

    #[test]
    fn malformed_names_are_refused() {
        let long_name = format!("h.io/{}", "a".repeat(251));
        let long_tag = format!("x:{}", "t".repeat(129));
        for text in [
            "",
            "X",
            "a/B",
            "a:",
            "a:.t",
            "a:-t",
            "a:b:c",
            "a@sha256:00",
            "a@",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/..",
            "a/../b",
            "a..b",
            "a_._b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a\n",
            "a\0",
            "a\u{7f}",
            "ä",
            "a:tag\n",
            "https://h.io/a",
            "h.io:0/a",
            "h.io:65536/a",
            "h.io:+1/a",
            "h..io/a",
            "-h.io/a",
            "[::1/a",
            "[zz]/a",
            "[::1]x/a",
            "h.io/a?b",
            "h.io/a%2e",
            "h.io/",
            &long_name,
            &long_tag,
        ] {
            refused(text);
        }
        refused(&"a".repeat(100_000));
        refused(&D["sha256:".len()..]);
        refused(&format!("a@{}", D.to_uppercase()));
        refused(&format!("a@sha256:../{}", &D[10..]));
        assert!(Reference::parse(&long_name[..255]).is_ok());
        assert!(Reference::parse(&long_tag[..130]).is_ok());
    }

    #[test]
    fn the_error_names_the_value_and_escapes_it() {
        assert!(refused("bad\nname").contains(r#""bad\nname""#));
        assert!(refused(&"a".repeat(100_000)).len() < 300);
    }

    #[test]
    fn queries_are_ids_names_or_both() {
        let id = Digest::parse(D).unwrap();
        assert_eq!(ImageQuery::parse(D).unwrap(), ImageQuery::Id(id.clone()));
        assert_eq!(ImageQuery::parse(id.hex()).unwrap(), ImageQuery::Id(id));
        let cafe = ImageQuery::parse("cafe").unwrap();
        let reference = Reference::parse("cafe").unwrap();
        assert_eq!(
            cafe,
            ImageQuery::Either {
                reference,
                prefix: "cafe".into()
            }
        );
        let short = ImageQuery::parse("sha256:cafe").unwrap();
        assert!(matches!(short, ImageQuery::Either { prefix, .. } if prefix == "cafe"));
        assert!(matches!(
            ImageQuery::parse("ab").unwrap(),
            ImageQuery::Reference(_)
        ));
        assert!(matches!(
            ImageQuery::parse("busybox").unwrap(),
            ImageQuery::Reference(_)
        ));
        assert!(ImageQuery::parse("../x").is_err());
        assert!(ImageQuery::parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,80}") {
            drop(ImageQuery::parse(&text));
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn canonical_form_round_trips(
            host in "[a-zA-Z0-9]{1,8}\\.[a-z]{1,4}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"),
            digest in proptest::option::of("sha256:[0-9a-f]{64}"),
        ) {
            let tag = tag.map(|t| format!(":{t}")).unwrap_or_default();
            let digest = digest.map(|d| format!("@{d}")).unwrap_or_default();
            let reference = Reference::parse(&format!("{host}/{path}{tag}{digest}")).unwrap();
            prop_assert_eq!(reference.tag.is_some(), reference.digest.is_none());
            let again = Reference::parse(&reference.to_string()).unwrap();
            prop_assert_eq!(again.to_string(), reference.to_string());
            prop_assert_eq!(again, reference);
        }
    }
}
