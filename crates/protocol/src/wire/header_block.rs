//! Blocks of headers, as nats-server stores them with messages.

/// Returns the headers of a block in their order: names, and values without the spaces around them.
/// Lines that continue a value are left out. Returns none if the block is not well formed: it must
/// be UTF-8 and begin with the version alone; each line has a name of printable ASCII before a
/// colon, and no carriage return inside.
pub fn parse(block: &[u8]) -> Option<Vec<(&str, &str)>> {
    if block.is_empty() {
        return Some(Vec::new());
    }
    let mut lines = std::str::from_utf8(block).ok()?.lines();
    // A status behind the version is for the server's own messages.
    if lines.next()?.trim_end() != "NATS/1.0" {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if line.contains('\r') {
            return None;
        }
        if line.starts_with(char::is_whitespace) {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        headers.push((name, value.trim()));
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn continued_values_keep_their_first_line() {
        let block = b"NATS/1.0\r\nce-id: 981\r\nX-Long: one\r\n  two\r\nX-None:\r\n\r\n";
        assert_eq!(
            parse(block).unwrap(),
            [("ce-id", "981"), ("X-Long", "one"), ("X-None", "")]
        );
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn malformed_blocks_are_not_read() {
        let blocks = [
            "X: 1\r\n\r\n",
            "NATS/1.0 503\r\n\r\n",
            "NATS/1.0\r\nno colon\r\n\r\n",
            "NATS/1.0\r\nb\u{e9}: 1\r\n\r\n",
        ];
        for block in blocks {
            assert_eq!(parse(block.as_bytes()), None, "{block:?}");
        }
        assert_eq!(parse(b"NATS/1.0\r\nX: \xff\r\n\r\n"), None);
    }
}
