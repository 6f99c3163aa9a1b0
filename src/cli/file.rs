//! Reads what a command is given: a file, or standard input, which is called `-`.

use std::io::Read;
use std::path::Path;

use super::CliError;
use crate::byte_order_mark;

/// The content of a file, and its name in messages.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn read(file: &Path) -> Result<Input, CliError> {
    let (name, bytes) = match file == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            (
                "standard input".to_owned(),
                std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
            )
        }
        false => (file.display().to_string(), std::fs::read(file)),
    };
    let bytes = bytes.map_err(|error| CliError::Io(format!("cannot read {name}"), error))?;
    Ok(Input { name, bytes })
}

pub(super) fn read_text(file: &Path) -> Result<String, CliError> {
    let Input { name, bytes } = read(file)?;
    if let Some(complaint) = byte_order_mark::complaint(&bytes) {
        return Err(CliError::Failed(format!(
            "{name} cannot be read: {complaint}"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|error| CliError::Failed(format!("{name} is not text in UTF-8: {error}")))
}
