//! `$(NAME)` in commands, arguments and variables.

/// Replaces each `$(NAME)` that `lookup` knows. `$$` stands for `$`, so `$$(NAME)` stays
/// `$(NAME)`; an unknown name stays as it is written.
pub(crate) fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match reference {
            Some((name, tail)) => {
                match lookup(name) {
                    Some(value) => out.push_str(value),
                    None => out.push_str(&rest[dollar..dollar + name.len() + 3]),
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The variables with references to earlier ones replaced.
pub(crate) fn variables(given: &[(String, String)]) -> Vec<(String, String)> {
    let mut done: Vec<(String, String)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        let value = expand(value, |wanted| find(&done, wanted));
        done.retain(|(other, _)| other != name);
        done.push((name.clone(), value));
    }
    done
}

/// The value of a variable.
pub(crate) fn find<'v>(variables: &'v [(String, String)], wanted: &str) -> Option<&'v str> {
    variables
        .iter()
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_a(text: &str) -> String {
        expand(text, |name| (name == "A").then_some("1"))
    }

    #[test]
    fn references() {
        assert_eq!(with_a("x$(A)y$(A)"), "x1y1");
        assert_eq!(with_a("$(B)"), "$(B)");
        assert_eq!(with_a("$$(A)"), "$(A)");
        assert_eq!(with_a("$$$(A)"), "$1");
        assert_eq!(with_a("$A $ $(A"), "$A $ $(A");
        assert_eq!(with_a("ä$(ö)$"), "ä$(ö)$");
    }

    #[test]
    fn variables_refer_to_earlier_ones_only() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let given = [
            pair("A", "$(B)"),
            pair("B", "2"),
            pair("C", "$(B)$(A)"),
            pair("B", "3"),
        ];
        let done = variables(&given);
        assert_eq!(
            done,
            [pair("A", "$(B)"), pair("C", "2$(B)"), pair("B", "3")]
        );
    }
}
