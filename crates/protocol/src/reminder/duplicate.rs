//! A reminder that was merged into another one, as app servers read of it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A reminder that was merged into another one. In JSON it is its id, or an object with `id` and
/// `data` if it has data of its own.
#[derive(Debug, Clone)]
pub struct Duplicate {
    /// Its id.
    pub id: String,
    /// Its data, byte for byte. None if it has none, or the same as the reminder that stands for
    /// it.
    pub data: Option<Box<RawValue>>,
}

/// Bytes that an object with `id` and `data` has around both.
pub const OBJECT_BYTES: usize = 16;

/// A merged reminder with data of its own.
#[derive(Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "MergedReminder")
)]
struct WithData<I, D> {
    /// Its id.
    id: I,
    /// Its data, byte for byte.
    data: D,
}

impl Serialize for Duplicate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.data {
            None => serializer.serialize_str(&self.id),
            Some(data) => WithData { id: &self.id, data }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Duplicate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DuplicateVisitor)
    }
}

struct DuplicateVisitor;

impl<'de> Visitor<'de> for DuplicateVisitor {
    type Value = Duplicate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id, or an object with `id` and `data`")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Self::Value, E> {
        let id = id.to_owned();
        Ok(Duplicate { id, data: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        // Not read as an `Option`: that would take data of `null` for no data.
        let with_data: WithData<_, Box<RawValue>> =
            WithData::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Duplicate {
            id: with_data.id,
            data: Some(with_data.data),
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Duplicate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duplicate".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let with_data = generator.subschema_for::<WithData<String, serde_json::Value>>();
        schemars::json_schema!({
            "description": "The id of a reminder that was merged into this one; with its data, if that is other data.",
            "oneOf": [{ "type": "string" }, with_data],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_byte_for_byte() {
        let json = r#"["a",{"id":"b","data":{"n": 1.50}},{"id":"c","data":null}]"#;
        let list: Vec<Duplicate> = serde_json::from_str(json).unwrap();
        let data = list
            .iter()
            .map(|one| one.data.as_ref().map(|data| data.get()));
        assert_eq!(
            data.collect::<Vec<_>>(),
            [None, Some(r#"{"n": 1.50}"#), Some("null")]
        );
        assert_eq!(serde_json::to_string(&list).unwrap(), json);
        for wrong in ["7", "{}", r#"{"id":"b"}"#, r#"{"data":1}"#] {
            assert!(serde_json::from_str::<Duplicate>(wrong).is_err(), "{wrong}");
        }
    }
}
