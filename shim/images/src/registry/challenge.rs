//! `WWW-Authenticate`: what a registry wants to see.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One way of proving oneself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Those of the challenges that are understood, in the order given.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect()
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme: Option<&str> = None;
    let mut parameters = BTreeMap::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        rest = after;
        match after.trim_start().strip_prefix('=') {
            Some(value) if scheme.is_some() => {
                let Some((text, after)) = parameter(value.trim_start()) else {
                    break;
                };
                parameters.entry(word.to_ascii_lowercase()).or_insert(text);
                rest = after;
            }
            Some(_) => break,
            None => {
                found.extend(scheme.take().and_then(|s| challenge(s, &mut parameters)));
                parameters.clear();
                scheme = Some(word);
            }
        }
    }
    found.extend(scheme.and_then(|s| challenge(s, &mut parameters)));
    found
}

fn challenge(scheme: &str, parameters: &mut BTreeMap<String, String>) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut take = |key: &str| parameters.remove(key).filter(|value| !value.is_empty());
    Some(Challenge::Bearer {
        realm: take("realm")?,
        service: take("service"),
        scope: take("scope"),
    })
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_graphic() || matches!(c, '=' | ',' | '"'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A value, quoted or not, and what follows. `None` for a quote that never ends.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = token(text);
        return Some((word.to_owned(), after));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn usual_headers_are_read() {
        let usual =
            r#"Bearer realm="https://a.io/token",service="s.io",scope="repository:x:pull,push""#;
        let want = bearer(
            "https://a.io/token",
            Some("s.io"),
            Some("repository:x:pull,push"),
        );
        assert_eq!(parse(usual), [want]);
        assert_eq!(parse("Basic realm=\"x\""), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(
            parse("BEARER Realm=http://x/t , Service = y"),
            [bearer("http://x/t", Some("y"), None)]
        );
    }

    #[test]
    fn several_in_one_header_keep_apart() {
        let both = r#"Negotiate, Basic realm="a, b=c \"d\"", Bearer realm="r",service="""#;
        assert_eq!(parse(both), [Challenge::Basic, bearer("r", None, None)]);
    }

    #[test]
    fn nonsense_gives_nothing() {
        for text in [
            "",
            ",,,",
            "Bearer",
            "Bearer realm=\"x",
            "=x",
            "Bearer service=\"a\"",
            "\"\"",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,100}") {
            drop(parse(&text));
        }
    }
}
