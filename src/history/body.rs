//! What a history reads of a reminder's finished JSON, which it keeps as it came.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;

use super::batch::Draft;

/// What can be asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Body<'j> {
    #[serde(borrow)]
    pub(super) title: Option<Cow<'j, str>>,
    /// A reminder whose content is not known yet has none.
    #[serde(borrow)]
    pub(super) content: Option<Cow<'j, str>>,
    #[serde(borrow, default)]
    tags: Vec<Name<'j>>,
}

/// Text that is borrowed where it can be: inside of a list, serde would copy a bare `Cow`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Name<'j>(#[serde(borrow)] Cow<'j, str>);

impl<'j> Body<'j> {
    /// Reads what there is. What is no finished reminder has nothing that can be asked for.
    pub(super) fn read(json: &'j str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Its tags, each once.
    pub(super) fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> = self.tags.iter().map(|tag| &*tag.0).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Its texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.title.as_deref().into_iter().chain(self.content.as_deref())
    }
}

/// What stands for a reminder whose content is not known: it was refused, or its first outcome is still to come.
pub(super) fn stand_in(draft: &Draft) -> String {
    let published_at = jiff::Timestamp::from_millisecond(draft.key.published_ms).unwrap_or_default();
    let key = &draft.key;
    json!({ "id": key.id, "source": key.source, "set": draft.set, "user": draft.user, "published_at": published_at })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_tags_are_read_and_the_rest_is_passed_over() {
        let body = Body::read(r#"{"id":"i","title":"a\"b","content":"费用","tags":["b","a","b"],"data":{"title":1}}"#);
        assert_eq!(body.texts().collect::<Vec<_>>(), ["a\"b", "费用"]);
        assert_eq!(body.tags(), ["a", "b"]);
        assert!(Body::read("{").content.is_none());
    }
}
