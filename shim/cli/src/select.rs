//! Label selectors: `app=web,tier!=db,owner,!old`.

use std::collections::HashMap;

/// Conditions on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(condition).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn matches(&self, labels: &HashMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::Has(key) => labels.contains_key(key),
            Condition::HasNot(key) => !labels.contains_key(key),
        })
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let pair = |(key, value): (&str, &str)| (key.trim().to_owned(), value.trim().to_owned());
    let condition = if let Some(parts) = text.split_once("!=") {
        let (key, value) = pair(parts);
        Condition::IsNot(key, value)
    } else if let Some(parts) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, value) = pair(parts);
        Condition::Is(key, value)
    } else if let Some(key) = text.strip_prefix('!') {
        Condition::HasNot(key.trim().to_owned())
    } else {
        Condition::Has(text.to_owned())
    };
    let key = match &condition {
        Condition::Is(key, _) | Condition::IsNot(key, _) => key,
        Condition::Has(key) | Condition::HasNot(key) => key,
    };
    if key.is_empty() || key.contains([' ', '(', ')', '=', '!']) {
        return Err(format!(
            "{text:?} is not a label condition such as app=web, app!=web, app"
        ));
    }
    Ok(condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(selector: &str) -> bool {
        let labels = [("app", "web"), ("tier", "front")];
        let labels = labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        Selector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn conditions() {
        for yes in [
            "",
            "app=web",
            "app==web,tier=front",
            "app!=db",
            "none!=x",
            "app",
            "!none",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "app=db",
            "app=web,tier=back",
            "app!=web",
            "none",
            "!app",
            "none=",
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector() {
        for bad in ["=x", "app in (web)", "!", "a b"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }
}
