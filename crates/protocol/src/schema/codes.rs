//! The schema of the codes of refusals: each code with its meaning.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::reminder::reject::RejectCode;

impl JsonSchema for RejectCode {
    fn schema_name() -> Cow<'static, str> {
        "RejectCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let code = |code: &Self| json!({ "const": code.as_str(), "description": code.meaning() });
        let codes: Vec<_> = Self::ALL.iter().map(code).collect();
        json_schema!({ "description": "Why input is refused.", "oneOf": codes })
    }
}
