//! The contract as an [AsyncAPI](https://www.asyncapi.com) document, from where Bellhop stands:
//! what it sends, what it receives.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::channels::{Act, Channel, Header, Message, OPERATIONS, Operation, PARAMETERS, channels};
use super::{BODIES, Body, examples, with_known_formats};
use crate::headers;
use crate::names::Names;

/// The version of AsyncAPI. Its schemas are those of JSON Schema draft 7.
const VERSION: &str = "3.0.0";

const ABOUT: &str = "Bellhop routes reminders from business systems to the app server that holds each user's connection. \
Bodies are JSON; unknown fields are ignored. docs/protocol.md has the same in words, with the guarantees on order and redelivery. \
Names in addresses are escaped: every byte outside A-Z a-z 0-9 _ - is written =XX, in upper-case hexadecimal digits.";

/// The queue of NATS micro services, unless they say another.
const QUEUE: &str = "q";

/// The pointer to the schemas, for references between them.
const SCHEMAS: &str = "#/components/schemas";

/// The document of an installation with these names.
pub fn document(names: &Names) -> Value {
    let mut schemas = Schemas::new();
    let (mut addresses, mut messages) = (Map::new(), Map::new());
    for channel in channels(names) {
        addresses.insert(channel.name.to_owned(), address(&channel));
        for message in &channel.messages {
            messages.insert(message.name.to_owned(), schemas.message(message));
        }
    }
    let operations: Map<_, _> = OPERATIONS
        .iter()
        .map(|operation| (operation.name.to_owned(), operation_object(operation)))
        .collect();
    let parameters: Map<_, _> = PARAMETERS
        .iter()
        .map(|(name, about)| ((*name).to_owned(), json!({ "description": about })))
        .collect();
    json!({
        "asyncapi": VERSION,
        "info": {
            "title": "Bellhop",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": addresses,
        "operations": operations,
        "components": { "parameters": parameters, "messages": messages, "schemas": schemas.definitions() },
    })
}

fn address(
    Channel {
        name: _,
        address,
        about,
        messages,
    }: &Channel,
) -> Value {
    let refer = |kind: &str, name: &str| {
        (
            name.to_owned(),
            json!({ "$ref": format!("#/components/{kind}/{name}") }),
        )
    };
    let messages: Map<_, _> = messages
        .iter()
        .map(|message| refer("messages", message.name))
        .collect();
    let mut channel = json!({ "address": address, "description": about, "messages": messages });
    let is_in_it = |name: &str| {
        address
            .as_ref()
            .is_some_and(|address| address.contains(&format!("{{{name}}}")))
    };
    let parameters: Map<_, _> = PARAMETERS
        .iter()
        .filter(|(name, _)| is_in_it(name))
        .map(|(name, _)| refer("parameters", name))
        .collect();
    if !parameters.is_empty() {
        channel["parameters"] = parameters.into();
    }
    channel
}

fn operation_object(
    Operation {
        name: _,
        about,
        act,
        channel,
        message,
        answers,
    }: &Operation,
) -> Value {
    let refer = |channel: &str| json!({ "$ref": format!("#/channels/{channel}") });
    let action = if *act == Act::Send { "send" } else { "receive" };
    let mut operation = json!({ "action": action, "channel": refer(channel), "summary": about });
    if let Some(message) = message {
        operation["messages"] =
            json!([{ "$ref": format!("#/channels/{channel}/messages/{message}") }]);
    }
    if let Some(answers) = answers {
        operation["reply"] = json!({ "channel": refer(answers) });
    }
    if *act == Act::Serve {
        operation["bindings"] = json!({ "nats": { "queue": QUEUE } });
    }
    operation
}

/// Schemas of what is read and of what is written, which refer to each other.
struct Schemas {
    theirs: SchemaGenerator,
    ours: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            with_known_formats(
                SchemaSettings::draft07()
                    .with(|settings| settings.definitions_path = SCHEMAS.into()),
            )
        };
        let (theirs, ours) = (settings().for_deserialize(), settings().for_serialize());
        let mut new = Self {
            theirs: theirs.into_generator(),
            ours: ours.into_generator(),
        };
        BODIES.iter().for_each(|body| drop(new.refer(body)));
        new
    }

    fn refer(&mut self, body: &Body) -> Value {
        let generator = if body.is_ours {
            &mut self.ours
        } else {
            &mut self.theirs
        };
        (body.of_type.part)(generator).to_value()
    }

    fn message(
        &mut self,
        Message {
            name,
            about,
            content_type,
            bodies,
            headers,
        }: &Message,
    ) -> Value {
        let mut message = json!({ "name": name, "summary": about });
        if let Some(content_type) = content_type {
            message["contentType"] = (*content_type).into();
        }
        if !headers.is_empty() {
            message["headers"] = headers_schema(headers);
        }
        let mut schemas: Vec<Value> = bodies
            .iter()
            .filter_map(|name| Body::named(name))
            .map(|body| self.refer(body))
            .collect();
        match schemas.len() {
            0 => return message,
            1 => message["payload"] = schemas.remove(0),
            _ => message["payload"] = json!({ "anyOf": schemas }),
        }
        let examples = bodies
            .iter()
            .flat_map(|name| examples::of(name))
            .map(|payload| example(headers, payload));
        message["examples"] = examples.collect();
        message
    }

    fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.theirs.take_definitions(true);
        for (name, schema) in self.ours.take_definitions(true) {
            let known = all.insert(name.clone(), schema.clone());
            debug_assert!(
                known.is_none_or(|known| known == schema),
                "{name} has two schemas"
            );
        }
        all
    }
}

fn example(headers: &[Header], payload: Value) -> Value {
    let required = headers.iter().filter(|header| header.is_required);
    let headers: Map<_, _> = required
        .map(|header| (header.name.to_owned(), header.meaning().1.into()))
        .collect();
    if headers.is_empty() {
        json!({ "payload": payload })
    } else {
        json!({ "headers": headers, "payload": payload })
    }
}

fn headers_schema(headers: &[Header]) -> Value {
    let schema = |header: &Header| {
        let schema = match header.name {
            headers::ERROR => json!({ "$ref": format!("{SCHEMAS}/RejectCode") }),
            _ => json!({ "type": "string", "description": header.meaning().0 }),
        };
        (header.name.to_owned(), schema)
    };
    let properties: Map<_, _> = headers.iter().map(schema).collect();
    let required: Vec<_> = headers
        .iter()
        .filter(|header| header.is_required)
        .map(|header| header.name)
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}
