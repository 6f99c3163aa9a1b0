//! The parts of a reminder's finished JSON that a history reads; it keeps the JSON unchanged.

use std::borrow::Cow;

use serde::Deserialize;

/// The searchable fields.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Body<'j> {
    #[serde(borrow)]
    pub(crate) title: Option<Cow<'j, str>>,
    /// A reminder whose content is not known yet has none.
    #[serde(borrow)]
    pub(crate) content: Option<Cow<'j, str>>,
    #[serde(borrow, default)]
    tags: Vec<Name<'j>>,
}

/// Text that is borrowed where it can be: inside of a list, serde would copy a bare `Cow`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Name<'j>(#[serde(borrow)] Cow<'j, str>);

impl<'j> Body<'j> {
    /// Reads what there is. A text that is not a finished reminder has no searchable fields.
    pub(crate) fn read(json: &'j str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Its tags, each once.
    pub(crate) fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> = self.tags.iter().map(|tag| &*tag.0).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Its texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.title
            .as_deref()
            .into_iter()
            .chain(self.content.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_tags_are_read_alone() {
        let body = Body::read(
            r#"{"id":"i","title":"a\"b","content":"费用","tags":["b","a","b"],"data":{"title":1}}"#,
        );
        assert_eq!(body.texts().collect::<Vec<_>>(), ["a\"b", "费用"]);
        assert_eq!(body.tags(), ["a", "b"]);
        assert!(Body::read("{").content.is_none());
    }
}
