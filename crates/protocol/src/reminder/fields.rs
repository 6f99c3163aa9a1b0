//! An object's fields, each byte for byte: for code that needs some of them, whatever the others
//! are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object in their order: name and value as written.
#[derive(Debug)]
pub struct Fields<'a>(pub Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Returns a field's value, unless it is `null`; of several of one name, the last.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self
            .0
            .iter()
            .rev()
            .find(|(written, _)| is_named(written, name))?;
        (!is_null(value)).then_some(value)
    }

    /// Returns all fields but those of this name that are `null`.
    pub fn without_null(&self, name: &str) -> impl Iterator<Item = &(&'a RawValue, &'a RawValue)> {
        self.0
            .iter()
            .filter(move |(written, value)| !(is_null(value) && is_named(written, name)))
    }

    /// Returns a field's value where it is a text.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

fn is_named(written: &RawValue, name: &str) -> bool {
    serde_json::from_str::<Cow<'_, str>>(written.get()).is_ok_and(|written| written == name)
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_beside_unreadable_ones() {
        let json = r#"{"\ud83d":1,"id":"a","n":1e400,"\u0069d":"b","user":null,"x":"\ude00"}"#;
        let fields: Fields<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(fields.text("id").as_deref(), Some("b"));
        assert_eq!(fields.get("n").map(RawValue::get), Some("1e400"));
        assert_eq!(
            (
                fields.text("n"),
                fields.text("x"),
                fields.text("user"),
                fields.text("y")
            ),
            (None, None, None, None)
        );
    }
}
