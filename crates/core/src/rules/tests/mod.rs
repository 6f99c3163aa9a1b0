//! The effects of rules on reminders, by example.

use serde_json::{Value, json};

use super::document::Document;
use super::engine::Engine;
use super::problem::Problem;
use super::*;
use bellhop_protocol::reminder::{Priority, set};

mod properties;
mod reader;
mod unicode;

/// The rules of these documents.
fn rules(documents: &[(&str, Value)]) -> Rules {
    let engines = documents
        .iter()
        .map(|(tag, document)| (tag.parse().unwrap(), Arc::new(engine(document))));
    Rules::new(engines.collect())
}

fn engine(document: &Value) -> Engine {
    let document = Document::parse(document.to_string().as_bytes())
        .unwrap_or_else(|problems| panic!("{}", list(&problems)));
    Engine::new(&document).unwrap_or_else(|problems| panic!("{}", list(&problems)))
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn reminder(tags: &[&str], title: Option<&str>, content: &str) -> Reminder {
    let origin = set::Origin {
        source: "s".parse().unwrap(),
        sequence: 1,
        published_at: "2026-11-22T08:00:00Z".parse().unwrap(),
    };
    let body =
        json!({ "reminders": [{ "user": "u", "title": title, "content": content, "tags": tags }] })
            .to_string();
    set::parse(&origin, body.as_bytes())
        .unwrap()
        .reminders
        .remove(0)
        .parsed
        .unwrap()
}

/// A reminder with tag `t` after the rules of one document.
fn applied(document: Value, content: &str) -> Reminder {
    let mut reminder = reminder(&["t"], None, content);
    assert_eq!(
        rules(&[("t", document)]).apply(&mut reminder).unwrap(),
        Verdict::Pass
    );
    reminder
}

fn masked(matching: Value, keyword: &str, content: &str) -> String {
    let document = json!({ "rules": [{ "name": "r", "keywords": [keyword], "action": "mask" }], "match": matching });
    applied(document, content).content
}

/// The text under each mark.
fn marked(reminder: &Reminder) -> Vec<(String, String)> {
    let text = |mark: &Mark| match mark.field {
        Field::Title => reminder.title.clone().unwrap(),
        Field::Content => reminder.content.clone(),
    };
    let under = |mark: &Mark| {
        text(mark)
            .chars()
            .skip(mark.start)
            .take(mark.end - mark.start)
            .collect()
    };
    reminder
        .marks
        .iter()
        .map(|mark| (mark.rule.clone(), under(mark)))
        .collect()
}

#[test]
fn the_contracts_example_does_what_it_says() {
    let document = json!({ "rules": [
        { "name": "card numbers", "patterns": [r"\b\d{16}\b"], "action": "mask", "with": "*" },
        { "name": "internal names", "keywords": ["Project Falcon", "falcon"], "action": "replace", "with": "the project" },
        { "name": "due", "keywords": ["due"], "action": "highlight" },
        { "name": "forbidden", "keywords": ["verboten"], "action": "block" }],
        "allow": ["peregrine falcon"], "match": { "case": "fold", "width": "fold", "words": "auto" } });
    let after = applied(
        document.clone(),
        "PROJECT FALCON is due. Card 4111111111111111; a peregrine falcon and one falcon, overdue.",
    );
    let expected = "the project is due. Card ****************; a peregrine falcon and one the project, overdue.";
    assert_eq!(after.content, expected);
    let mark = Mark {
        tag: "t".parse().unwrap(),
        rule: "due".into(),
        field: Field::Content,
        start: 15,
        end: 18,
        action: MarkAction::Highlight,
        href: None,
    };
    assert_eq!(after.marks, [mark]);
    let mut blocked = reminder(&["t"], Some("Ｖerboten"), "x");
    let verdict = rules(&[("t", document)]).apply(&mut blocked).unwrap();
    assert_eq!(
        verdict,
        Verdict::Blocked {
            tag: "t".parse().unwrap(),
            rule: "forbidden".into()
        }
    );
}

#[test]
fn every_action_does_its_part() {
    let document = json!({ "rules": [
        { "name": "m", "keywords": ["secret"], "action": "mask", "with": "#" },
        { "name": "r", "keywords": ["old"], "action": "replace", "with": "new" },
        { "name": "d", "keywords": ["damn "], "action": "remove" },
        { "name": "h", "keywords": ["now"], "action": "highlight" },
        { "name": "l", "keywords": ["portal"], "action": "link", "href": "https://example.com/" },
        { "name": "p", "keywords": ["urgent"], "action": "priority", "with": "urgent" },
        { "name": "q", "keywords": ["soon"], "action": "priority", "with": "high" }] });
    let after = applied(
        document,
        "secret old damn thing, soon urgent: now at the portal",
    );
    assert_eq!(
        after.content,
        "###### new thing, soon urgent: now at the portal"
    );
    assert_eq!(
        marked(&after),
        [
            ("h".to_owned(), "now".to_owned()),
            ("l".to_owned(), "portal".to_owned())
        ]
    );
    assert_eq!(after.marks[1].href.as_deref(), Some("https://example.com/"));
    assert_eq!(after.priority, Priority::Urgent);
}

#[test]
fn title_and_content_are_processed_and_marked_each() {
    let document =
        json!({ "rules": [{ "name": "h", "keywords": ["due"], "action": "highlight" }] });
    let mut after = reminder(&["t"], Some("Overdue? Due!"), "due");
    rules(&[("t", document)]).apply(&mut after).unwrap();
    let places: Vec<_> = after
        .marks
        .iter()
        .map(|mark| (mark.field, mark.start, mark.end))
        .collect();
    assert_eq!(places, [(Field::Title, 9, 12), (Field::Content, 0, 3)]);
}

#[test]
fn only_the_reminders_tags_apply_in_their_order() {
    let replace = |from: &str, to: &str| json!({ "rules": [{ "name": "r", "keywords": [from], "action": "replace", "with": to }] });
    let rules = rules(&[
        ("a", replace("one", "two")),
        ("b", replace("two", "three")),
        ("c", replace("one", "x")),
        ("d", replace("one", "one one")),
    ]);
    for (tags, expected) in [
        (&["a", "b"][..], "three"),
        (&["b", "a"], "two"),
        (&["x"], "one"),
        (&[], "one"),
        (&["d", "d"], "one one"),
    ] {
        let mut after = reminder(tags, None, "one");
        rules.apply(&mut after).unwrap();
        assert_eq!(after.content, expected, "{tags:?}");
    }
}

#[test]
fn marks_follow_the_text_through_later_documents() {
    let first = json!({ "rules": [{ "name": "h", "keywords": ["due", "the invoice"], "action": "highlight" }] });
    let second = json!({ "rules": [
        { "name": "r", "keywords": ["please"], "action": "replace", "with": "👋🏽" },
        { "name": "i", "keywords": ["invoice"], "action": "replace", "with": "bill" },
        { "name": "m", "keywords": ["due"], "action": "mask" }] });
    let mut after = reminder(&["1", "2"], None, "please, the invoice is due");
    rules(&[("1", first), ("2", second)])
        .apply(&mut after)
        .unwrap();
    assert_eq!(after.content, "👋🏽, the bill is ***");
    let text: Vec<_> = marked(&after).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, ["the bill", "***"]);
}

#[test]
fn replacements_are_leftmost_longest_and_masks_are_united() {
    let document = json!({ "rules": [
        { "name": "a", "keywords": ["abc", "bcde"], "action": "replace", "with": "1" },
        { "name": "b", "keywords": ["abcd", "e"], "action": "replace", "with": "2" }], "match": { "words": "off" } });
    assert_eq!(applied(document, "abcdef").content, "22f");
    let document = json!({ "rules": [
        { "name": "a", "keywords": ["abc"], "action": "mask", "with": "x" },
        { "name": "b", "keywords": ["bcd"], "action": "mask", "with": "y" },
        { "name": "c", "keywords": ["de"], "action": "replace", "with": "-" }], "match": { "words": "off" } });
    assert_eq!(applied(document, "abcdef").content, "xxx-f");
}

#[test]
fn detection_sees_what_lies_inside_of_other_matches() {
    let document = json!({ "rules": [
        { "name": "h", "keywords": ["project falcon"], "action": "replace", "with": "x" },
        { "name": "b", "keywords": ["falcon"], "action": "block" }] });
    let verdict = rules(&[("t", document)])
        .apply(&mut reminder(&["t"], None, "Project Falcon"))
        .unwrap();
    assert_eq!(
        verdict,
        Verdict::Blocked {
            tag: "t".parse().unwrap(),
            rule: "b".into()
        }
    );
}

#[test]
fn marks_do_not_overlap_nor_split_replacements() {
    let document = json!({ "rules": [
        { "name": "h", "keywords": ["due", "due date", "date"], "action": "highlight" },
        { "name": "r", "keywords": ["date"], "action": "replace", "with": "day" },
        { "name": "g", "keywords": ["date"], "action": "highlight" },
        { "name": "i", "patterns": ["the.*da"], "action": "highlight" }] });
    let after = applied(document, "the due date");
    let mark = |rule: &str, text: &str| (rule.to_owned(), text.to_owned());
    assert_eq!(after.content, "the due day");
    assert_eq!(
        marked(&after),
        [
            mark("i", "the due "),
            mark("h", "due day"),
            mark("g", "day")
        ]
    );
}

#[test]
fn allowed_phrase_protects_only_matches_inside_it() {
    let document = json!({ "rules": [
        { "name": "m", "keywords": ["falcon", "falcon heavy"], "patterns": ["f.l"], "action": "mask" }],
        "allow": ["peregrine falcon"] });
    assert_eq!(
        applied(document.clone(), "a peregrine falcon").content,
        "a peregrine falcon"
    );
    assert_eq!(
        applied(document.clone(), "peregrine falcon heavy").content,
        "peregrine ************"
    );
    assert_eq!(
        applied(document, "xperegrine falcon").content,
        "xperegrine ******"
    );
}

#[test]
fn case_and_width_fold_unless_they_are_exact() {
    for (matching, keyword, content, expected) in [
        (
            json!({}),
            "straße",
            "STRASSE Straße ＳＴＲＡẞＥ",
            "******* ****** ******",
        ),
        (
            json!({ "case": "exact" }),
            "Straße",
            "STRASSE Straße straße",
            "STRASSE ****** straße",
        ),
        (
            json!({ "width": "exact" }),
            "abc",
            "ＡＢＣ abc ABC",
            "ＡＢＣ *** ***",
        ),
        (json!({}), "ﬁt 10㎏", "FIT １０kg", "********"),
        (json!({}), "ガス", "ｶﾞｽ ガス ガス", "** ** **"),
        (json!({}), "café", "CAFE\u{301} café cafe", "**** **** cafe"),
        (
            json!({ "case": "exact", "width": "exact" }),
            "cafe\u{301}",
            "café CAFÉ",
            "**** CAFÉ",
        ),
        (
            json!({}),
            "İstanbul",
            "i\u{307}stanbul İSTANBUL istanbul",
            "******** ******** istanbul",
        ),
        (json!({}), "ΣΊΣΥΦΟΣ", "Σίσυφος σίσυφοσ", "******* *******"),
        (json!({}), "привет", "ПРИВЕТ, мир", "******, мир"),
    ] {
        assert_eq!(
            masked(matching.clone(), keyword, content),
            expected,
            "{keyword} in {content} with {matching}"
        );
    }
}

#[test]
fn words_have_ends_where_the_script_has_them() {
    for (words, keyword, content, expected) in [
        (
            "auto",
            "due",
            "due overdue due_date duet (due) due's dué",
            "*** overdue due_date duet (***) ***'s dué",
        ),
        ("auto", "手机", "我的手机号iPhone手机", "我的**号iPhone**"),
        (
            "auto",
            "iPhone",
            "我的iPhone手机 iPhones",
            "我的******手机 iPhones",
        ),
        ("auto", "전화", "전화번호는 전화에", "**번호는 **에"),
        ("auto", "データ", "ビッグデータ分析", "ビッグ***分析"),
        ("auto", "กิน", "ฉันกินข้าว", "ฉัน**ข้าว"),
        ("auto", "क", "कि क", "कि *"),
        ("auto", "שלום", "שלום, והשלום", "****, והשלום"),
        ("auto", "👩", "👩‍👩‍👧 👩", "👩‍👩‍👧 *"),
        ("auto", "$5", "x$5 $50", "x** $50"),
        ("auto", "kg", "5㎏ 5 ㎏", "5* 5 *"),
        ("on", "手机", "我的手机 手机", "我的手机 **"),
        ("on", "due", "overdue due", "overdue ***"),
        ("off", "due", "overdue dué", "over*** dué"),
        ("off", "ｆ", "ﬁ", "*"),
        ("off", "👩", "👩‍👩‍👧", "*"),
    ] {
        assert_eq!(
            masked(json!({ "words": words }), keyword, content),
            expected,
            "{keyword} in {content}, words {words}"
        );
    }
}

#[test]
fn skipped_characters_may_stand_between_letters() {
    for (skip, keyword, content, expected) in [
        (
            "*- ",
            "falcon",
            "f*a-l c o n, xf-alcon f-alconx, fal=con",
            "***********, xf-alcon f-alconx, fal=con",
        ),
        ("*", "fa*con", "fa*con facon f*acon", "****** ***** ******"),
        ("-", "f", "-f- -ff", "-*- -ff"),
        ("\u{200b}\u{200d}", "ab", "a\u{200b}b a\u{200d}b", "** **"),
        ("－", "ab", "a-b a－b", "*** ***"),
        (" ", "法轮", "法 轮 大", "*** 大"),
        (" ", "no", "piano on no", "piano on **"),
    ] {
        assert_eq!(
            masked(json!({ "skip": skip }), keyword, content),
            expected,
            "{keyword} in {content}, skip {skip:?}"
        );
    }
}

#[test]
fn mask_has_one_character_per_visible_character() {
    let text = "x👨‍👩‍👧‍👦e\u{301}🇩🇪नि\r\ny";
    assert_eq!(masked(json!({ "words": "off" }), text, text), "*******");
    assert_eq!(masked(json!({ "words": "off" }), "\r", "a\r\nb"), "a*b");
    // Found by the fuzz target.
    assert_eq!(
        masked(
            json!({ "words": "on", "typography": "exact" }),
            "M]\r",
            "M]\r\n M]\r"
        ),
        "M]\r\n ***"
    );
}

#[test]
fn patterns_fold_width_and_case_as_configured() {
    let document = |case: &str| json!({ "rules": [{ "name": "m", "patterns": ["[A-Z]{2}-\\d+", "x*"], "action": "mask" }], "match": { "case": case } });
    assert_eq!(
        applied(document("fold"), "ab-12 ＡＢ-１２").content,
        "***** *****"
    );
    assert_eq!(
        applied(document("exact"), "ab-12 ＡＢ-１２").content,
        "ab-12 *****"
    );
}

#[test]
fn too_many_matches_fail_and_marks_are_cut() {
    let grow = json!({ "rules": [{ "name": "r", "keywords": ["a"], "action": "replace", "with": "x".repeat(1_024) }],
        "match": { "words": "off" } });
    let mut much = reminder(&["t"], None, &"a".repeat(1_000));
    assert!(matches!(
        rules(&[("t", grow)]).apply(&mut much),
        Err(RulesError::TooLong(_))
    ));
    let keywords: Vec<_> = (1..=40).map(|n| "a".repeat(n)).collect();
    let bomb = json!({ "rules": [{ "name": "r", "keywords": keywords, "action": "mask" }], "match": { "words": "off" } });
    let mut much = reminder(&["t"], None, &"a".repeat(60_000));
    assert!(matches!(
        rules(&[("t", bomb)]).apply(&mut much),
        Err(RulesError::TooManyMatches(_))
    ));
    let marks =
        json!({ "rules": [{ "name": "r".repeat(128), "keywords": ["a"], "action": "highlight" }] });
    let many = applied(marks, &"a ".repeat(30_000));
    assert!(
        many.to_json().len() <= MAX_REMINDER_BYTES && many.marks.len() > 400,
        "{}",
        many.marks.len()
    );
}

#[test]
fn problems_name_rule_place_and_input() {
    let problems = |document: &str| match Document::parse(document.as_bytes()) {
        Err(problems) => list(&problems),
        Ok(document) => list(&Engine::new(&document).expect_err("it has a mistake")),
    };
    for (document, expected) in [
        (
            "{",
            "not JSON: EOF while parsing an object at line 1 column 1\n",
        ),
        (
            "\u{feff}{}",
            "not JSON: it begins with a byte order mark (the bytes EF BB BF), which JSON does not have; write UTF-8 \
             without it\n",
        ),
        ("[]", "a document is a JSON object with a list `rules`\n"),
        (
            "{}",
            "`rules` is missing; a document without rules has an empty list\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["a"]}]}"#,
            "rule 1 \"x\": missing field `action`\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["a"],"action":"hide"}]}"#,
            "rule 1 \"x\": unknown variant `hide`, expected one of `mask`, `replace`, `remove`, `highlight`, `link`, `block`, `priority`\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["a"],"action":"replace"}]}"#,
            "rule 1 \"x\": missing field `with`\n",
        ),
        (
            r#"{"rules":[{"name":"","keywords":["a"],"action":"block"}]}"#,
            "rule 1: name: 0 bytes; a name has 1 to 128, without control characters\n",
        ),
        (
            r#"{"rules":[{"name":"x","action":"block"}]}"#,
            "rule 1 \"x\": neither `keywords` nor `patterns`: there is nothing to look for\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["a",""],"action":"block"}]}"#,
            "rule 1 \"x\": keywords[1]: empty; it would match everywhere\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["--"],"action":"block"}],"match":{"skip":"-"}}"#,
            "rule 1 \"x\": keywords[0]: \"--\" has nothing but characters that `match.ignorable` or `match.skip` leaves out, so nothing is left to find\n",
        ),
        (
            r#"{"rules":[{"name":"x","patterns":["\\w{5000}"],"action":"block"}]}"#,
            "rule 1 \"x\": patterns[0]: with this one, the patterns of the document take more than 32 MiB when compiled. Unicode's classes are large: `[0-9]` takes far less than `\\d`, `[0-9A-Za-z_]` than `\\w`, `(?-u:\\b)` than `\\b`, and a small count less than a large one. The document's field `pattern_mib` sets the limit, up to 256\n",
        ),
        (
            r#"{"rules":[{"name":"x","keywords":["a"],"action":"link","href":"/pay"}]}"#,
            "rule 1 \"x\": href: \"/pay\" is not a valid link; it must be http://HOST…, https://HOST…, mailto:… or tel:…\n",
        ),
        (
            r#"{"rules":[],"match":{"case":"any"}}"#,
            "unknown variant `any`, expected `fold` or `exact`\n",
        ),
    ] {
        assert_eq!(problems(document), expected, "{document}");
    }
    let twice = r#"{"rules":[{"name":"x","keywords":["a"],"action":"block"},{"name":"x","patterns":["("],"action":"block"}]}"#;
    let found = problems(twice);
    assert!(
        found.contains("rule 2 \"x\": another rule has this name"),
        "{found}"
    );
    assert!(
        found.contains("rule 2 \"x\": patterns[0]: invalid regular expression \"(\""),
        "{found}"
    );
    let unknown = Document::unknown_fields(
        br#"{"rules":[{"keyword":[]}],"match":{"words":"on","word":1},"x":1}"#,
    );
    assert_eq!(unknown.len(), 3, "{}", list(&unknown));
}

/// Each pattern is small enough alone, and few would be.
#[test]
fn all_patterns_of_a_document_together_are_bounded() {
    let with = |count: usize| {
        let rules: Vec<_> = (0..count)
            .map(
                |n| json!({ "name": n.to_string(), "patterns": [r"\w{5}\d{9}"], "action": "mask" }),
            )
            .collect();
        let document = json!({ "rules": rules }).to_string();
        Document::parse(document.as_bytes()).and_then(|document| Engine::new(&document))
    };
    let bytes = with(20).unwrap().heap_bytes();
    let too_many = 20 * (32 << 20) / bytes + 1;
    assert!(
        with(too_many - 1).is_ok() && too_many < 500,
        "{bytes} bytes for 20"
    );
    let problems = with(1_000).unwrap_err();
    assert_eq!(problems.len(), 1, "it is said once: {problems:?}");
    let expected = format!(
        "rule {too_many} \"{}\": patterns[0]: with this one, the patterns",
        too_many - 1
    );
    assert!(
        problems[0].to_string().starts_with(&expected),
        "{problems:?}"
    );
}

#[test]
fn links_are_web_mail_or_telephone() {
    let found = |href: &str| {
        let rule =
            serde_json::json!({ "name": "x", "keywords": ["a"], "action": "link", "href": href });
        let document = serde_json::json!({ "rules": [rule] }).to_string();
        list(&Document::parse(document.as_bytes()).unwrap().check())
    };
    for link in [
        "https://example.com/a?b=c#d",
        "HTTP://h",
        "mailto:a@example.com",
        "tel:+49-30-1",
        "https://[::1]:8/",
    ] {
        assert_eq!(found(link), "", "{link}");
    }
    for refused in [
        "javascript:alert(1)",
        "Java\tScript:alert(1)",
        " https://example.com",
        "data:text/html,x",
        "vbscript:x",
        "blob:https://h/1",
        "file:///etc/hosts",
        "view-source:https://h",
        "//example.com",
        "/pay",
        "pay",
        "?a=b",
        "https:example.com",
        "https:/example.com",
        "https:///example.com",
        "https://",
        "http:\\\\h",
        "mailto:",
        "https://h/\u{202e}moc",
        "https://h/a b",
        "https\u{200f}://h",
    ] {
        assert!(
            found(refused).contains("is not a valid link; it must be http"),
            "{refused}: {}",
            found(refused)
        );
    }
}

#[test]
fn a_tag_without_usable_rules_is_refused() {
    let rules = rules(&[]).refusing("t".parse().unwrap());
    assert_eq!(
        rules.apply(&mut reminder(&["t"], None, "c")),
        Err(RulesError::Unusable("t".parse().unwrap()))
    );
    assert_eq!(
        rules.apply(&mut reminder(&["other"], None, "c")),
        Ok(Verdict::Pass)
    );
}
