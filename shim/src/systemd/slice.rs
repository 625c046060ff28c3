//! Names of slices. `a-b.slice` is in `a.slice`: a dash is a level.

const SUFFIX: &str = ".slice";

/// The cgroup of a slice, below the root of the hierarchies: `/a.slice/a-b.slice`
/// for `a-b.slice`. The error says what is wrong with the name.
pub(crate) fn expand(name: &str) -> Result<String, &'static str> {
    let stem = name
        .strip_suffix(SUFFIX)
        .ok_or("does not end in \".slice\"")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if !stem.chars().all(allowed) {
        return Err("is no name of a systemd unit");
    }
    // systemd's root of all slices; nothing of ours belongs right there.
    if stem == "-" || stem.is_empty() {
        return Err("is the root slice");
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err("has a dash too many");
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push('/');
        path.push_str(&prefix);
        path.push_str(SUFFIX);
    }
    Ok(path)
}

/// The slice for a cgroup path of ours: `a-b.slice` for `/a/b`, and itself for the name
/// of a slice.
pub(crate) fn of_path(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.ends_with(SUFFIX) {
        return path.rsplit('/').next().unwrap_or(path).to_owned();
    }
    format!("{}{SUFFIX}", path.replace('/', "-"))
}

#[cfg(test)]
mod tests {
    use super::{expand, of_path};

    #[test]
    fn a_dash_is_a_level() {
        for (name, path) in [
            ("test.slice", "/test.slice"),
            (
                "kubepods-burstable-pod1_2.slice",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
            ),
            ("a-b.slice", "/a.slice/a-b.slice"),
        ] {
            assert_eq!(expand(name).as_deref(), Ok(path));
        }
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        for name in [
            "",
            "a",
            ".slice",
            "-.slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "a b.slice",
            "a\nb.slice",
            "a.scope",
            "../a.slice",
        ] {
            assert!(expand(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_path_of_ours_has_a_slice() {
        assert_eq!(of_path("/carpel"), "carpel.slice");
        assert_eq!(of_path("/a/b/"), "a-b.slice");
        assert_eq!(of_path("a-b.slice"), "a-b.slice");
        assert_eq!(of_path("/a.slice/a-b.slice"), "a-b.slice");
    }
}
