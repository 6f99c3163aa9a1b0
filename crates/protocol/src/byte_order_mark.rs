//! Byte order marks, which some editors and shells write before a text. JSON has none, and errors
//! of JSON readers do not name it: it cannot be seen.

/// Returns a sentence about the byte order mark that these bytes begin with; none if there is no
/// mark.
pub fn complaint(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xEF, 0xBB, 0xBF, ..] => Some(
            "it begins with a byte order mark (the bytes EF BB BF), which JSON does not have; write UTF-8 without it",
        ),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            Some("it begins with a byte order mark of UTF-16; write UTF-8 without one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_named() {
        for (bytes, part) in [
            (&b"\xef\xbb\xbf{}"[..], Some("EF BB BF")),
            (b"\xff\xfe{\0", Some("UTF-16")),
            (b"\xfe\xff\0{", Some("UTF-16")),
            (b"{\"a\":\"\xef\xbb\xbf\"}", None),
            (b"", None),
        ] {
            let found = complaint(bytes);
            assert_eq!(found.is_some(), part.is_some(), "{bytes:?}");
            assert!(found.unwrap_or_default().contains(part.unwrap_or_default()));
        }
    }
}
