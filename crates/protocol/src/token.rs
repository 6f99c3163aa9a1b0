//! Names that come from outside, and how they travel in NATS subjects and KV keys.
//!
//! User ids, instance names, sources and tags are free UTF-8 text. They are parsed here once into
//! types that cannot be wrong, so that nothing further in ever builds a subject from raw text.
//! Escaping is injective and leaves none of the characters that mean something to NATS (`.`, `*`,
//! `>`, white space).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes of its UTF-8 text.
pub const MAX_NAME_BYTES: usize = 128;

/// The pattern of text without control characters, in the schemas of names and ids.
pub const NO_CONTROL: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

/// The reason why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no bytes.
    #[error("is empty; a name has 1 to {MAX_NAME_BYTES} bytes")]
    Empty,
    /// The text has more bytes than [`MAX_NAME_BYTES`].
    #[error("has {0} bytes; a name has at most {MAX_NAME_BYTES}")]
    TooLong(usize),
    /// The text has a control character, at this byte.
    #[error("has a control character at byte {0}")]
    ControlCharacter(usize),
    /// A subject token is not the escaped form of any text.
    #[error(
        "`{0}` is not an escaped name: bytes outside A-Z a-z 0-9 _ - are written =XX in upper-case hex"
    )]
    NotEscaped(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(text.len()));
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(NameError::ControlCharacter(at)),
        None => Ok(()),
    }
}

/// Returns true if [`escape`] leaves a byte as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Writes `text` as one subject token: every byte outside `A-Z a-z 0-9 _ -` becomes `=XX`.
pub fn escape(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(byte as char);
        } else {
            token.push('=');
            token.push(HEX[usize::from(byte >> 4)] as char);
            token.push(HEX[usize::from(byte & 15)] as char);
        }
    }
    token
}

/// Reads a subject token back. Only what [`escape`] can have written is accepted, so that one name
/// has one subject.
///
/// # Errors
/// [`NameError::NotEscaped`] with the token.
pub fn unescape(token: &str) -> Result<String, NameError> {
    if token.bytes().all(is_plain) {
        return Ok(token.to_owned());
    }
    let refuse = || NameError::NotEscaped(token.to_owned());
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digits = [
                rest.next().ok_or_else(refuse)?,
                rest.next().ok_or_else(refuse)?,
            ];
            let digits = std::str::from_utf8(&digits).map_err(|_| refuse())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| refuse())?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse())?;
    if escape(&text) == token {
        Ok(text)
    } else {
        Err(refuse())
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// 1 to 128 bytes of UTF-8 without control characters.
        // Cloning shares the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(try_from = "String")]
        #[cfg_attr(feature = "schema", schemars(extend("minLength" = 1, "maxLength" = MAX_NAME_BYTES, "pattern" = NO_CONTROL)))]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text as one subject token.
            pub fn escaped(&self) -> String {
                escape(&self.0)
            }

            /// Reads a subject token.
            ///
            /// # Errors
            /// Says why the token is not the escaped form of a name.
            pub fn from_token(token: &str) -> Result<Self, NameError> {
                unescape(token)?.parse()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type! {
    /// The user for whom a reminder is published.
    UserId
}
name_type! {
    /// An app-server instance: a process that holds users' long connections.
    InstanceName
}
name_type! {
    /// A business system that publishes reminder sets.
    Source
}
name_type! {
    /// A tag of a reminder; it selects rules.
    Tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_as_the_contract_shows() {
        assert_eq!(escape("alice"), "alice");
        assert_eq!(escape("a.b@c"), "a=2Eb=40c");
        assert_eq!(escape("张三"), "=E5=BC=A0=E4=B8=89");
    }

    #[test]
    fn one_name_has_one_token() {
        for token in [
            "a=2eb", "a=", "a=2", "a=zz", "=61", "a.b", "张", "=FF", "=+1",
        ] {
            assert_eq!(unescape(token), Err(NameError::NotEscaped(token.into())));
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!("".parse::<UserId>(), Err(NameError::Empty));
        assert_eq!(
            "a\u{85}b".parse::<UserId>(),
            Err(NameError::ControlCharacter(1))
        );
        assert_eq!(
            "x".repeat(129).parse::<UserId>(),
            Err(NameError::TooLong(129))
        );
        assert!("x".repeat(128).parse::<UserId>().is_ok());
        assert!("a.b *>".parse::<UserId>().is_ok());
    }

    proptest! {
        #[test]
        fn escaping_round_trips_without_a_forbidden_character(text in any::<String>()) {
            let token = escape(&text);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)));
            prop_assert_eq!(unescape(&token), Ok(text));
        }

        #[test]
        fn unescaping_never_panics_and_is_strict(token in "[A-Za-z0-9=_.-]{0,12}") {
            if let Ok(text) = unescape(&token) {
                prop_assert_eq!(escape(&text), token);
            }
        }
    }
}
