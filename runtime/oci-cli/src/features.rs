//! What a runtime says of itself (features of the OCI runtime specification).

use serde::Deserialize;

/// What the daemon asks about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Mount option `rro`.
    pub recursive_read_only_mounts: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(default)]
    mount_options: Option<Vec<String>>,
}

pub(crate) fn parse(text: &str) -> Result<Features, serde_json::Error> {
    let told: Told = serde_json::from_str(text)?;
    let options = told.mount_options.unwrap_or_default();
    Ok(Features {
        recursive_read_only_mounts: options.iter().any(|option| option == "rro"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_counts() {
        let able = r#"{"mountOptions": ["bind", "rro"], "linux": {}}"#;
        assert!(parse(able).unwrap().recursive_read_only_mounts);
        for unable in [
            "{}",
            r#"{"mountOptions": null}"#,
            r#"{"mountOptions": ["ro"]}"#,
        ] {
            assert_eq!(parse(unable).unwrap(), Features::default(), "{unable}");
        }
        assert!(parse("runc version 1").is_err());
    }
}
