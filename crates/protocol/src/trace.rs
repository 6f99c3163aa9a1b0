//! The trace of a set, from its header `traceparent` of W3C Trace Context
//! (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A span of a trace: `00-<trace id>-<span id>-<flags>`, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

/// The name of the header.
pub const HEADER: &str = "traceparent";

/// Bytes of what version 00 of the standard writes; a later version may have more behind a hyphen.
const BYTES: usize = 55;

/// Text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent; it looks like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct NoTraceParent;

impl TraceParent {
    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.0
    }
}

impl TryFrom<String> for TraceParent {
    type Error = NoTraceParent;

    fn try_from(text: String) -> Result<Self, NoTraceParent> {
        text.parse()
    }
}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// Reads the header's value. Additions of later versions of the standard are ignored.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let (known, more) = text.split_at_checked(BYTES).ok_or(NoTraceParent)?;
        let parts: Vec<&str> = known.split('-').collect();
        let &[version, trace, span, flags] = parts.as_slice() else {
            return Err(NoTraceParent);
        };
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_id = |id: &str, length| id.len() == length && id.chars().all(is_hex);
        let is_set = |id: &str| id.chars().any(|c| c != '0');
        let has_version = is_id(version, 2) && version != "ff";
        let may_have_more = more.is_empty() || (version != "00" && more.starts_with('-'));
        let has_ids =
            is_id(trace, 32) && is_set(trace) && is_id(span, 16) && is_set(span) && is_id(flags, 2);
        if has_version && may_have_more && has_ids {
            Ok(Self(format!("00{}", &known[2..])))
        } else {
            Err(NoTraceParent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn standard_trace_headers_are_read() {
        assert_eq!(ONE.parse::<TraceParent>().unwrap().as_str(), ONE);
        for later in [format!("01{}", &ONE[2..]), format!("cc{}-more", &ONE[2..])] {
            assert_eq!(
                later.parse::<TraceParent>().unwrap().as_str(),
                ONE,
                "{later}"
            );
        }
    }

    #[test]
    fn anything_else_is_none() {
        let wrong = [
            "",
            "00",
            &ONE[..54],
            &format!("{ONE}0"),
            &format!("{ONE}-more"),
            &format!("ff{}", &ONE[2..]),
            &format!("cc{}more", &ONE[2..]),
            &ONE.to_uppercase(),
            &ONE.replace('-', "_"),
            &ONE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &ONE.replace("b7ad6b7169203331", &"0".repeat(16)),
            &"é".repeat(30),
        ];
        for text in wrong {
            assert_eq!(text.parse::<TraceParent>(), Err(NoTraceParent), "{text}");
        }
    }
}
