//! YAML as a tree in which every key and value knows where it was written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl From<Location> for At {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// A key of a mapping and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) at: At,
    pub(crate) name: String,
}

/// What a manifest can be made of.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// How a message names this kind of value.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a text is no YAML.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) at: At,
    pub(crate) message: String,
}

/// The documents of a YAML (or JSON) text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Malformed> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
    };
    let nodes: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Malformed {
            at: error.location().map(At::from).unwrap_or_default(),
            message: one_line(&error.without_snippet().to_string()),
        })?;
    let nodes = nodes.into_iter().map(Node::from);
    Ok(nodes
        .filter(|node| !matches!(node.value, Value::Null))
        .collect())
}

/// The parser repeats the place at the end of its message; we print it in front.
fn one_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("malformed YAML");
    let place = line.rfind(" at line ").unwrap_or(line.len());
    line[..place].trim_end_matches([':', ' ']).to_owned()
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self {
            at: spanned.referenced.into(),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Value>>()? {
            let key = Key {
                at: key.referenced.into(),
                name: key.value,
            };
            entries.push((key, value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("a mapping, not {other:?}"),
        }
    }

    #[test]
    fn places_of_keys_and_values_are_kept() {
        let nodes = documents("a: 1\nb:\n  - c: \"x\"\n    d: [true, 0.5]\n").unwrap();
        let root = entries(&nodes[0]);
        assert_eq!(root[0].0.at, At { line: 1, column: 1 });
        assert_eq!(root[0].1.at, At { line: 1, column: 4 });
        let Value::List(items) = &root[1].1.value else {
            panic!("a list")
        };
        let item = entries(&items[0]);
        assert_eq!(
            (item[0].0.name.as_str(), item[0].0.at),
            ("c", At { line: 3, column: 5 })
        );
        assert_eq!(item[0].1.at, At { line: 3, column: 8 });
        assert!(matches!(&item[0].1.value, Value::Text(text) if text == "x"));
        let Value::List(flow) = &item[1].1.value else {
            panic!("a list")
        };
        assert!(matches!(flow[0].value, Value::Bool(true)));
        assert_eq!(
            flow[1].at,
            At {
                line: 4,
                column: 15
            }
        );
    }

    #[test]
    fn several_documents_json_and_empty_ones() {
        let nodes = documents("---\na: 1\n---\n---\n{\"b\": {\n\t\"c\": null}}\n").unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!(entries(&nodes[1])[0].0.name, "b");
        assert!(matches!(
            entries(&entries(&nodes[1])[0].1)[0].1.value,
            Value::Null
        ));
    }

    #[test]
    fn a_quoted_number_is_text() {
        let nodes = documents("a: \"80\"\nb: 80\n").unwrap();
        assert!(matches!(&entries(&nodes[0])[0].1.value, Value::Text(text) if text == "80"));
        assert!(matches!(entries(&nodes[0])[1].1.value, Value::Int(80)));
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = documents("a: 1\nb: [1,\nc: 2\n").unwrap_err();
        assert!(error.at.line >= 2, "{error:?}");
        assert!(!error.message.contains(" at line "), "{error:?}");
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        let error = documents("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.at.line, 2, "{error:?}");
    }
}
