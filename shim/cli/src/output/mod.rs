//! How lists are printed.

mod table;

use serde::Serialize;

use crate::error::{CliError, Result};

pub(crate) use table::{Table, pairs};

/// Pretty JSON with a newline at its end.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::refused(format!("write JSON: {error}")))?;
    Ok(text + "\n")
}

/// A YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| CliError::refused(format!("write YAML: {error}")))?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}
