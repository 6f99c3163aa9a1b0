//! The rule document of a tag, as people write it, and what can be wrong with it.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::problem::{Problem, label};
use crate::byte_order_mark;
use crate::printable::{is_obeyed, printable};
use crate::reminder::Priority;

/// The most rules of a document.
pub const MAX_RULES: usize = 1_000;
/// The most keywords and allowed phrases of a document.
pub const MAX_KEYWORDS: usize = 1_000_000;
/// The most patterns of a document. Each one passes over every text.
pub const MAX_PATTERNS: usize = 1_000;
/// The MiB that all patterns of a document may take when compiled, unless the document says
/// otherwise. Their size is also what a text costs: with so much, a text of 64 KiB takes about 0.1
/// s of the intake, which all sources share.
pub const PATTERN_MIB: u16 = 32;
/// The most MiB that a document may allow itself for patterns: beyond that, one text would stop all
/// sources for seconds.
pub const MAX_PATTERN_MIB: u16 = 256;
/// The longest keyword or allowed phrase, in bytes.
pub const MAX_KEYWORD_BYTES: usize = 1_024;
/// The longest rule name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The longest replacement, and the longest link, in bytes.
pub const MAX_WITH_BYTES: usize = 1_024;
/// The most characters in `skip`.
pub const MAX_SKIP: usize = 64;

/// The rules for the reminders of one tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields, extend("required" = ["rules"])))]
pub struct Document {
    /// The rules. Their order decides where they compete for the same text.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = MAX_RULES)))]
    pub rules: Vec<Rule>,
    /// Phrases and patterns that are left alone: a match that lies inside of one of them does not
    /// count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allowed>,
    /// Comparison of keywords and allowed phrases with texts.
    #[serde(default, rename = "match")]
    pub matching: Matching,
    /// Maximum size of all compiled patterns, in MiB.
    #[serde(default = "pattern_mib")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_PATTERN_MIB)))]
    pub pattern_mib: u16,
    /// Texts, and what is expected to become of them. `bellhop rules test` and `put` look whether
    /// it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Test>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            allow: Vec::new(),
            matching: Matching::default(),
            pattern_mib: PATTERN_MIB,
            tests: Vec::new(),
        }
    }
}

fn pattern_mib() -> u16 {
    PATTERN_MIB
}

/// Text that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(deny_unknown_fields)
)]
#[serde(untagged)]
pub enum Allowed {
    /// A word or phrase, compared with texts as keywords are.
    Phrase(
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_KEYWORD_BYTES)))] String,
    ),
    /// A regular expression, as in a rule's `patterns`.
    Pattern {
        /// The regular expression.
        pattern: String,
    },
}

impl Allowed {
    /// Returns the phrase, if it is one.
    pub fn phrase(&self) -> Option<&str> {
        match self {
            Self::Phrase(phrase) => Some(phrase),
            Self::Pattern { .. } => None,
        }
    }
}

/// A search, and an action for each match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(deny_unknown_fields)
)]
pub struct Rule {
    /// The rule's name in marks, in outcomes and in messages; unique in its document.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_NAME_BYTES)))]
    pub name: String,
    /// Words and phrases to find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1, max = MAX_KEYWORD_BYTES))))]
    pub keywords: Vec<String>,
    /// Regular expressions to find, in the syntax of Rust's regex crate. They are compared with
    /// texts as keywords are, except that white space stays as it is. Where a match may begin and
    /// end they say themselves: `\b` is the boundary of keywords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = MAX_PATTERNS)))]
    pub patterns: Vec<String>,
    /// The action for each match.
    #[serde(flatten)]
    pub action: Action,
}

/// The action for a match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// Every character that a reader sees becomes `with`.
    Mask {
        /// The replacement of each character.
        #[serde(default = "star")]
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_WITH_BYTES)))]
        with: String,
    },
    /// The match becomes `with`.
    Replace {
        /// The replacement of the match.
        #[cfg_attr(feature = "schema", schemars(length(max = MAX_WITH_BYTES)))]
        with: String,
    },
    /// The match is taken out.
    Remove,
    /// The text stays, and a mark tells where it is.
    Highlight,
    /// The same, with a link.
    Link {
        /// The link's address: an `http` or `https` address with a host, `mailto:` or `tel:`.
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_WITH_BYTES)))]
        href: String,
    },
    /// The reminder is not delivered: outcome `blocked`.
    Block,
    /// The reminder gets another priority; the highest of several.
    Priority {
        /// The new priority.
        with: Priority,
    },
}

impl Action {
    /// All names of actions in documents.
    pub const NAMES: [&str; 7] = [
        "mask",
        "replace",
        "remove",
        "highlight",
        "link",
        "block",
        "priority",
    ];

    /// Its name in documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mask { .. } => "mask",
            Self::Replace { .. } => "replace",
            Self::Remove => "remove",
            Self::Highlight => "highlight",
            Self::Link { .. } => "link",
            Self::Block => "block",
            Self::Priority { .. } => "priority",
        }
    }
}

fn star() -> String {
    "*".to_owned()
}

/// Comparison of keywords with texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Matching {
    /// Difference between upper and lower case.
    pub case: Difference,
    /// Difference between full-width, half-width and other compatibility forms.
    pub width: Difference,
    /// Word boundaries that a match requires.
    pub words: Words,
    /// Difference made by invisible characters, and by those that only make a word longer: soft
    /// hyphens, zero-width characters, variation selectors, the Arabic tatweel.
    pub ignorable: Difference,
    /// Difference between typographic and plain quotation marks and hyphens, and between a run of
    /// white space and one space.
    pub typography: Difference,
    /// The language whose upper and lower case is meant, where it differs from that of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Treatment of addresses in the text, such as `https://example.com/due` and `due@example.com`.
    pub addresses: Addresses,
    /// Characters that may stand between the letters of a keyword, such as `*- `. Every one of them
    /// counts.
    #[cfg_attr(feature = "schema", schemars(length(max = MAX_SKIP)))]
    pub skip: String,
}

/// The relevance of a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// It does not: both forms are the same.
    #[default]
    Fold,
    /// It does.
    Exact,
}

/// A language with an upper and lower case of its own: `I` is the upper case of `ı`, and `İ` that
/// of `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Azeri.
    Az,
    /// Turkish.
    Tr,
}

/// The treatment of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// They do, as to every text.
    #[default]
    Match,
    /// A match that lies inside of an address does not count.
    Leave,
}

/// The word boundaries that a match requires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// Required in scripts that put spaces between words. Not in Chinese, Japanese, Korean, Thai
    /// and the like.
    #[default]
    Auto,
    /// In every script: letters and digits on both sides of a match's end refuse it.
    On,
    /// Never.
    Off,
}

/// A text, and what is expected to become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(deny_unknown_fields)
)]
pub struct Test {
    /// A short description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The reminder's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The reminder's content.
    pub content: String,
    /// The expected result. Omitted fields are not checked.
    pub expect: Expect,
}

/// The expected reminder after the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Expect {
    /// The title as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The content as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// All marks: those of the title first, in the order of their starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marks: Option<Vec<ExpectedMark>>,
    /// The priority as delivered. A test's reminder is `normal` before the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The rule that blocks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// The reminder is delivered as it came: the same title, content and priority, and no marks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
}

/// A mark, by what a reader sees of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(deny_unknown_fields)
)]
pub struct ExpectedMark {
    /// The name of the rule that marks.
    pub rule: String,
    /// The text under the mark.
    pub text: String,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// Everything in it that cannot be read.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<Problem>> {
        let value: Value = serde_json::from_slice(json).map_err(|error| {
            let problem = byte_order_mark::complaint(json)
                .map_or_else(|| error.to_string(), ToOwned::to_owned);
            vec![Problem::error(format!("not JSON: {problem}"))]
        })?;
        let Value::Object(mut fields) = value else {
            return Err(vec![Problem::error(
                "a document is a JSON object with a list `rules`",
            )]);
        };
        let mut problems = wrong_allowed(fields.get("allow"));
        let rules = read_list("rule", "rules", &mut fields, &mut problems).unwrap_or_else(|| {
            problems.push(Problem::error(
                "`rules` is missing; a document without rules has an empty list",
            ));
            Vec::new()
        });
        let tests = read_list("test", "tests", &mut fields, &mut problems).unwrap_or_default();
        if !problems.is_empty() {
            fields.remove("allow"); // Its problem is reported already.
        }
        let rest = serde_json::from_value::<Self>(Value::Object(fields))
            .map_err(|error| problems.push(Problem::error(error)));
        match rest {
            Ok(rest) if problems.is_empty() => Ok(Self {
                rules,
                tests,
                ..rest
            }),
            _ => Err(problems),
        }
    }

    /// Returns the problems of values that have the right type.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let phrases = self.allow.iter().filter_map(Allowed::phrase).count();
        let in_rules = |count: fn(&Rule) -> usize| self.rules.iter().map(count).sum::<usize>();
        let keywords = in_rules(|rule| rule.keywords.len()) + phrases;
        let patterns = in_rules(|rule| rule.patterns.len()) + self.allow.len() - phrases;
        for (what, count, most) in [
            ("rules", self.rules.len(), MAX_RULES),
            ("keywords", keywords, MAX_KEYWORDS),
            ("patterns", patterns, MAX_PATTERNS),
        ] {
            if count > most {
                problems.push(Problem::error(format!(
                    "{count} {what}; a document has at most {most}"
                )));
            }
        }
        if !(1..=MAX_PATTERN_MIB).contains(&self.pattern_mib) {
            let problem = format!(
                "{}; 1 to {MAX_PATTERN_MIB} can be allowed",
                self.pattern_mib
            );
            problems.push(Problem::error(problem).at("pattern_mib"));
        }
        let skip = self.matching.skip.chars().count();
        if skip > MAX_SKIP {
            problems.push(
                Problem::error(format!(
                    "{skip} characters; at most {MAX_SKIP} can be skipped"
                ))
                .at("match.skip"),
            );
        }
        problems.extend(
            self.allow
                .iter()
                .enumerate()
                .filter_map(|(at, allowed)| keyword_problem("allow", at, allowed.phrase()?)),
        );
        let mut names = HashSet::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let is_new = names.insert(rule.name.as_str());
            problems.extend(
                rule.check(is_new)
                    .into_iter()
                    .map(|problem| problem.in_rule(at, &rule.name)),
            );
        }
        problems
    }
}

impl Rule {
    fn check(&self, is_new: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let name = self.name.len();
        if !(1..=MAX_NAME_BYTES).contains(&name) || self.name.contains(char::is_control) {
            let problem = format!(
                "{name} bytes; a name has 1 to {MAX_NAME_BYTES}, without control characters"
            );
            problems.push(Problem::error(problem).at("name"));
        } else if !is_new {
            problems.push(Problem::error(
                "another rule has this name; marks and outcomes could not tell them apart",
            ));
        }
        if self.keywords.is_empty() && self.patterns.is_empty() {
            problems.push(Problem::error(
                "neither `keywords` nor `patterns`: there is nothing to look for",
            ));
        }
        problems.extend(
            self.keywords
                .iter()
                .enumerate()
                .filter_map(|(at, keyword)| keyword_problem("keywords", at, keyword)),
        );
        let with = |place: &str, text: &str, least: usize| {
            let is_right = (least..=MAX_WITH_BYTES).contains(&text.len());
            let problem = || {
                Problem::error(format!(
                    "{} bytes; {least} to {MAX_WITH_BYTES} are allowed",
                    text.len()
                ))
            };
            (!is_right).then(|| problem().at(place))
        };
        problems.extend(match &self.action {
            Action::Mask { with: text } => with("with", text, 1),
            Action::Replace { with: text } => with("with", text, 0),
            Action::Link { href } => with("href", href, 1).or_else(|| leads_nowhere(href)),
            Action::Remove | Action::Highlight | Action::Block | Action::Priority { .. } => None,
        });
        problems
    }
}

fn keyword_problem(list: &str, at: usize, keyword: &str) -> Option<Problem> {
    let place = format!("{list}[{at}]");
    let problem = match keyword.len() {
        0 => "empty; it would match everywhere".to_owned(),
        1..=MAX_KEYWORD_BYTES => return None,
        n => format!("{n} bytes; a keyword has at most {MAX_KEYWORD_BYTES}"),
    };
    Some(Problem::error(problem).at(place))
}

/// The permitted addresses of links. Some app servers show an address as it is, so what a browser
/// would run, read from the reader's machine, or resolve against the app server's own address is
/// refused here.
const LINKS: &str = "http://HOST…, https://HOST…, mailto:… or tel:…";

fn leads_nowhere(href: &str) -> Option<Problem> {
    let (scheme, rest) = href.split_once(':').unwrap_or_default();
    let is_allowed = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => rest
            .strip_prefix("//")
            .is_some_and(|host| !host.starts_with(['/', '\\', '?', '#', '@', ':'])),
        "mailto" | "tel" => true,
        _ => false,
    };
    let is_one_word = !href.contains(|c: char| c.is_whitespace() || is_obeyed(c))
        && !rest.trim_matches('/').is_empty();
    let problem = || {
        Problem::error(format!(
            "{:?} is not a valid link; it must be {LINKS}",
            printable(href)
        ))
        .at("href")
    };
    (!is_allowed || !is_one_word).then(problem)
}

/// Takes a list out of an object and reads its items, each by itself, so that all of them tell what
/// is wrong.
fn read_list<T: DeserializeOwned>(
    kind_of_item: &str,
    name: &str,
    fields: &mut Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> Option<Vec<T>> {
    let items = match fields.remove(name)? {
        Value::Array(items) => items,
        other => {
            problems.push(Problem::error(format!(
                "`{name}` is {}, not a list",
                kind(&other)
            )));
            return Some(Vec::new());
        }
    };
    let mut read = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let label = label(kind_of_item, at, item["name"].as_str().unwrap_or_default());
        let mut wrong: Vec<_> = ["keywords", "patterns"]
            .iter()
            .flat_map(|list| wrong_texts(item.get(list), list))
            .collect();
        if wrong.is_empty() {
            match serde_json::from_value(item) {
                Ok(item) => read.push(item),
                Err(error) => wrong.push(Problem::error(error)),
            }
        }
        problems.extend(
            wrong
                .into_iter()
                .map(|problem| problem.in_part(label.clone())),
        );
    }
    Some(read)
}

/// Returns the items of a list of texts that are none.
fn wrong_texts(list: Option<&Value>, name: &str) -> Vec<Problem> {
    wrong_items(list, name, Value::is_string, "not a text")
}

/// Returns the items of `allow` that are neither texts nor patterns.
fn wrong_allowed(list: Option<&Value>) -> Vec<Problem> {
    let is_allowed =
        |item: &Value| item.is_string() || item.get("pattern").is_some_and(Value::is_string);
    let not = r#"neither a text nor `{"pattern": "..."}`"#;
    wrong_items(list, "allow", is_allowed, not)
}

fn wrong_items(
    list: Option<&Value>,
    name: &str,
    is_right: impl Fn(&Value) -> bool,
    not: &str,
) -> Vec<Problem> {
    let items = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate();
    let wrong = items.filter(|(_, item)| !is_right(item));
    wrong
        .map(|(at, item)| {
            Problem::error(format!("{}, {not}", kind(item))).at(format!("{name}[{at}]"))
        })
        .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
