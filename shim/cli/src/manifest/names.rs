//! What Kubernetes allows in a name, a label, a path.

use super::report::{Placed, Report};

/// `None` when `text` is a DNS-1123 label, else why it is not.
pub(crate) fn label_fault(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.len() > 63 {
        return Some(format!(
            "{} characters are too many (at most 63)",
            text.len()
        ));
    }
    let inner = text.chars().all(|c| fits(c) || c == '-');
    if !inner || !text.starts_with(fits) || !text.ends_with(fits) {
        return Some(format!(
            "{text:?} is not a DNS label: lower-case letters, digits and '-', \
             with a letter or digit at both ends"
        ));
    }
    None
}

/// The same for a DNS-1123 subdomain: labels with dots between them.
pub(crate) fn subdomain_fault(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some(format!(
            "{} characters are too many (at most 253)",
            text.len()
        ));
    }
    if text.split('.').any(|label| label_fault(label).is_some()) {
        return Some(format!(
            "{text:?} is not a DNS name: lower-case letters, digits, '-' and '.', \
             with a letter or digit at both ends"
        ));
    }
    None
}

/// Reports a label's key and value when the API server would refuse them.
pub(crate) fn check_label(key: &str, value: &Placed<String>, report: &Report) {
    check_key(key, value, report);
    if !value.value.is_empty() && !is_qualified(&value.value) {
        let message = format!(
            "{:?} is not a label value: at most 63 letters, digits, '-', '_', \
                               '.', with a letter or digit at both ends",
            value.value
        );
        value.wrong(report, message);
    }
}

/// Reports the key of a label or an annotation.
pub(crate) fn check_key(key: &str, value: &Placed<String>, report: &Report) {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(|prefix| subdomain_fault(prefix).is_none());
    if !prefix_fits || !is_qualified(name) {
        value.wrong(
            report,
            format!(
                "{key:?} is not a key: [prefix/]name of letters, digits, \
                                     '-', '_', '.'"
            ),
        );
    }
}

fn is_qualified(name: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    let inner = name.chars().all(|c| end(c) || matches!(c, '-' | '_' | '.'));
    inner && name.len() <= 63 && name.starts_with(end) && name.ends_with(end)
}

/// Reports a path that is not absolute, climbs, or cannot be written in one line.
pub(crate) fn check_absolute(path: &Placed<String>, report: &Report) {
    let text = &path.value;
    if !text.starts_with('/') {
        path.wrong(report, format!("{text:?} is not an absolute path"));
    } else if climbs(text) {
        path.wrong(report, format!("{text:?} must not contain '..'"));
    } else if text.contains(['\0', '\n', ':']) {
        path.wrong(
            report,
            format!("{text:?} must not contain NUL, newline or ':'"),
        );
    }
}

/// Reports a path that does not stay below where it starts.
pub(crate) fn check_relative(path: &Placed<String>, report: &Report) {
    let text = &path.value;
    if text.starts_with('/') {
        path.wrong(report, format!("{text:?} must be a relative path"));
    } else if climbs(text) {
        path.wrong(report, format!("{text:?} must not contain '..'"));
    } else if text.contains(['\0', '\n']) {
        path.wrong(report, format!("{text:?} must not contain NUL or newline"));
    }
}

fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tree::At;

    fn placed(text: &str) -> Placed<String> {
        Placed {
            value: text.to_owned(),
            at: At::default(),
            path: String::new(),
        }
    }

    fn faults(check: impl Fn(&Report)) -> usize {
        let report = Report::default();
        check(&report);
        report.into_mistakes().len()
    }

    #[test]
    fn labels_and_subdomains() {
        assert_eq!(label_fault("web-1"), None);
        for bad in ["", "Web", "-web", "web-", "we_b", "a.b", &"a".repeat(64)] {
            assert!(label_fault(bad).is_some(), "{bad:?}");
        }
        assert_eq!(subdomain_fault("web.v1.example"), None);
        for bad in ["a..b", ".a", "a.", "A.b"] {
            assert!(subdomain_fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn label_keys_and_values() {
        assert_eq!(
            faults(|r| check_label("app.kubernetes.io/name", &placed("web_1.x"), r)),
            0
        );
        assert_eq!(faults(|r| check_label("app", &placed(""), r)), 0);
        assert_eq!(faults(|r| check_label("a b", &placed("x"), r)), 1);
        assert_eq!(faults(|r| check_label("a/b/c", &placed("x"), r)), 1);
        assert_eq!(faults(|r| check_label("app", &placed("x y"), r)), 1);
    }

    #[test]
    fn paths() {
        assert_eq!(faults(|r| check_absolute(&placed("/var/log..d"), r)), 0);
        for bad in ["var", "", "/a/../b", "/a\nb", "/a:b"] {
            assert_eq!(faults(|r| check_absolute(&placed(bad), r)), 1, "{bad:?}");
        }
        assert_eq!(faults(|r| check_relative(&placed("a/b"), r)), 0);
        for bad in ["/a", "a/..", "..", "a\0"] {
            assert_eq!(faults(|r| check_relative(&placed(bad), r)), 1, "{bad:?}");
        }
    }
}
