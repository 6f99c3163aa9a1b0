//! Rules find what a reader sees, however it is encoded.

use serde_json::{Value, json};

use super::{applied, masked};
use crate::rules::document::Document;
use crate::rules::engine::Engine;

/// Returns the text after a masking pattern.
fn masked_by_pattern(matching: Value, pattern: &str, content: &str) -> String {
    let rule = json!({ "name": "r", "patterns": [pattern], "action": "mask" });
    applied(json!({ "rules": [rule], "match": matching }), content).content
}

#[test]
fn a_word_ends_at_a_symbol() {
    for (keyword, content, expected) in [
        ("WARNING", "⚠️WARNING: overdue", "⚠️*******: overdue"),
        ("WARNING", "⚠\u{301}WARNING⚠️", "⚠\u{301}*******⚠️"),
        ("first", "1️⃣first 2⃣first", "1️⃣***** 2⃣*****"),
        (
            "Acme",
            "Acme™ Widgets, Acme® AcmeTM",
            "****™ Widgets, ****® AcmeTM",
        ),
        ("Acme", "™Acme ℠Acme™", "™**** ℠****™"),
        ("deadline", "the deadline¹ is near", "the ********¹ is near"),
        ("TM", "Acme™ AcmeTM TM", "Acme* AcmeTM **"),
        ("5kg", "5㎏ 5kg 15kg", "** *** 15kg"),
        ("kg", "5㎏ 5kg", "5* 5kg"),
        ("Acme™", "Acme™ AcmeTM", "***** ******"),
        ("Acme™ Widgets", "my Acme™ Widgets", "my *************"),
        ("half", "½half", "½****"),
        ("due", "©️due ☎︎due", "©️*** ☎︎***"),
        ("due", "due\u{200b}\u{301}due", "***\u{200b}\u{301}***"),
        ("dueـﾞ", "dueـﾞا dueﾞا", "****ا dueﾞا"),
    ] {
        assert_eq!(
            masked(json!({}), keyword, content),
            expected,
            "{keyword} in {content}"
        );
    }
}

#[test]
fn patterns_and_keywords_agree_on_boundaries() {
    for (word, content, expected) in [
        ("4111", "您的卡号4111已过期", "您的卡号****已过期"),
        (
            "4111",
            "カード番号4111は無効です",
            "カード番号****は無効です",
        ),
        ("4111", "카드번호4111는", "카드번호****는"),
        (
            "4111",
            "หมายเลขบัตร4111หมดอายุ กิ4111",
            "หมายเลขบัตร****หมดอายุ กิ****",
        ),
        (
            "4111",
            "номер4111 à4111 4111à 41110",
            "номер4111 à4111 4111à 41110",
        ),
        ("4111", "🎉4111™ 1️⃣4111¹ ⚠️4111", "🎉****™ 1️⃣****¹ ⚠️****"),
        ("4111", "a🏽4111a🏽 a4111", "a🏽****a🏽 a4111"),
        ("ab", "a🏽ab手🏽ab1🏽 aab", "a🏽**手🏽**1🏽 aab"),
        (
            "4111",
            "x\u{ad}4111 \u{200b}4111",
            "x\u{ad}4111 \u{200b}****",
        ),
        ("Acme", "Acme™ AcmeTM", "****™ AcmeTM"),
        ("手机", "我的手机号", "我的**号"),
        ("データ", "ビッグﾃﾞｰﾀ分析", "ビッグ***分析"),
        ("дом", "дом домик", "*** домик"),
    ] {
        let pattern = format!(r"\b{word}\b");
        assert_eq!(
            masked(json!({}), word, content),
            expected,
            "{word} in {content}"
        );
        assert_eq!(
            masked_by_pattern(json!({}), &pattern, content),
            expected,
            "{pattern} in {content}"
        );
    }
    let on = json!({ "words": "on" });
    for content in ["卡号4111", "卡号 手机4111手机"] {
        assert_eq!(masked(on.clone(), "4111", content), content);
        assert_eq!(masked_by_pattern(on.clone(), r"\b4111\b", content), content);
    }
    let card = r"\b\d{16}\b";
    assert_eq!(
        masked_by_pattern(
            json!({}),
            card,
            "您的卡号4111111111111111已过期 号41111111111111111"
        ),
        "您的卡号****************已过期 号41111111111111111"
    );
    assert_eq!(
        masked_by_pattern(json!({}), r"\b[^\d手]\b", "我手a1 b"),
        "*手a1**"
    );
    assert_eq!(masked_by_pattern(json!({}), r"\B\d\B", "1234号"), "1**4号");
}

#[test]
fn unseen_characters_hide_no_word() {
    for (keyword, content, expected) in [
        (
            "falcon",
            "fal\u{ad}con, fal\u{200b}con, f\u{2060}alcon",
            "******, ******, ******",
        ),
        (
            "falcon",
            "\u{200b}falcon\u{feff} a\u{ad}falcon",
            "\u{200b}******\u{feff} a\u{ad}falcon",
        ),
        ("fal\u{ad}con", "falcon", "******"),
        (
            "falcon",
            "fal\u{200d}con f\u{fe0f}alcon \u{202e}falcon\u{202c}",
            "****** ****** \u{202e}******\u{202c}",
        ),
        ("سري", "ســري ـسري سريـ", "***** ـ*** ***ـ"),
        ("میخواهم", "می\u{200c}خواهم", "*******"),
        ("❤️", "❤ ❤️ ❤\u{fe0e}", "* * *"),
        ("☎️", "☎", "*"),
        ("👩‍❤‍👩", "👩‍❤️‍👩", "*"),
        ("👩👧", "👩‍👧", "👩‍👧"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴 *"),
        ("ភាសាខ្មែរ", "ភាសា\u{200b}ខ្មែរ", "****"),
        ("น้ำ", "น\u{e4d}\u{e49}า", "**"),
        ("น\u{e4d}\u{e49}า", "น้ำ", "*"),
        ("ນ້ຳ", "ນ\u{ecd}\u{ec9}າ", "**"),
        ("ꦗꦮ", "ꦧꦱꦗꦮꦠꦤ꧀", "ꦧꦱ**ꦠꦤ꧀"),
    ] {
        assert_eq!(
            masked(json!({}), keyword, content),
            expected,
            "{keyword} in {content}"
        );
    }
    assert_eq!(
        masked_by_pattern(json!({}), r"\d{16}", "4111\u{200b}1111\u{ad}11111111"),
        "*".repeat(16)
    );
    let exact = json!({ "ignorable": "exact" });
    assert_eq!(
        masked(exact.clone(), "falcon", "fal\u{ad}con"),
        "fal\u{ad}con"
    );
    assert_eq!(masked(exact, "\u{200b}", "a\u{200b}b"), "a*b");
}

#[test]
fn typography_is_plain_and_white_space_one_space() {
    for (keyword, content, expected) in [
        (
            "Project Falcon",
            "Project\nFalcon Project  Falcon Project\r\n\tFalcon",
            "************** *************** ***************",
        ),
        (
            "Project Falcon",
            "Project\u{a0}Falcon Project\u{3000}\u{2028}Falcon",
            "************** ***************",
        ),
        ("Project  Falcon", "Project Falcon", "**************"),
        (
            "top-secret",
            "top\u{2011}secret top–secret top−secret top—secret",
            "********** ********** ********** top—secret",
        ),
        ("top‐secret", "top-secret", "**********"),
        (
            "don't tell",
            "don’t tell don‛t tell",
            "********** **********",
        ),
        (
            "“secret”",
            "\"secret\" „secret“ «secret»",
            "******** ******** ********",
        ),
        ("kindly ", "kindly  pay", "******* pay"), // The first of the run.
    ] {
        assert_eq!(
            masked(json!({}), keyword, content),
            expected,
            "{keyword:?} in {content:?}"
        );
    }
    assert_eq!(
        masked_by_pattern(json!({}), r"\d{3}-\d{4}", "555\u{2011}1234"),
        "********"
    );
    assert_eq!(
        masked_by_pattern(json!({}), r"a  b", "a  b a b"),
        "**** a b"
    );
    let exact = json!({ "typography": "exact" });
    for content in ["a\tb", "a  b", "a\u{2028}b"] {
        assert_eq!(masked(exact.clone(), "a b", content), content);
    }
    assert_eq!(masked(exact, "don't", "don’t"), "don’t");
}

#[test]
fn turkish_and_azeri_have_two_letters_i() {
    for language in ["tr", "az"] {
        let tr = json!({ "language": language });
        for (keyword, content, expected) in [
            (
                "İstanbul",
                "istanbul İSTANBUL İstanbul Istanbul ISTANBUL",
                "******** ******** ******** Istanbul ISTANBUL",
            ),
            (
                "ısparta",
                "ISPARTA Isparta ısparta isparta",
                "******* ******* ******* isparta",
            ),
            (
                "gizli",
                "GİZLİ Gizli G\u{49}\u{307}ZLİ GIZLI",
                "***** ***** ***** GIZLI",
            ),
        ] {
            assert_eq!(masked(tr.clone(), keyword, content), expected, "{keyword}");
            assert_eq!(
                masked_by_pattern(tr.clone(), &format!(r"\b{keyword}\b"), content),
                expected,
                "{keyword}"
            );
        }
        assert_eq!(
            masked_by_pattern(tr.clone(), "[A-Z]+", "ISPARTA"),
            "*******"
        );
        let exact = json!({ "language": language, "case": "exact" });
        assert_eq!(masked(exact, "gizli", "gizli GİZLİ"), "***** GİZLİ");
    }
    assert_eq!(masked(json!({}), "mail", "MAIL"), "****");
}

#[test]
fn patterns_are_folded_as_texts_are() {
    for (pattern, content, expected) in [
        (r"验证码：\d{6}", "验证码：123456", "**********"),
        (r"￥\d+", "￥981 ¥981", "**** ****"),
        (r"\d+ ?m²", "12 m² 12m2", "***** ****"),
        ("[：；]", "a：b;c", "a*b*c"),
        ("[０-９]{2}", "１2", "**"),
        ("[^：]", ":a", ":*"),
        ("[㎏t]", "5㎏ 5kg 5t", "5* 5** 5*"),
        ("(?:㎏)+", "kgkg", "****"),
        ("cafe\u{301}", "café cafe\u{301}", "**** ****"),
        ("☎️ ?[0-9]+", "☎ 12", "****"),
        ("don’t", "don't", "*****"),
        (r"[！-～]", "a！", "**"),
        (r"\x{ff10}", "0", "*"),
    ] {
        assert_eq!(
            masked_by_pattern(json!({}), pattern, content),
            expected,
            "{pattern} in {content}"
        );
    }
}

#[test]
fn patterns_and_addresses_are_left_alone() {
    let text = "See https://intranet.example/falcon/981 and mail falcon@example.com, falcon.";
    let rules = json!([{ "name": "r", "keywords": ["falcon"], "action": "replace", "with": "the project" }]);
    let left = "See https://intranet.example/falcon/981 and mail falcon@example.com, the project.";
    let by_switch = json!({ "rules": rules, "match": { "addresses": "leave" } });
    assert_eq!(applied(by_switch, text).content, left);
    let by_pattern = json!({ "rules": rules, "allow": [{ "pattern": r"https?://\S+|\S+@\S+\b" }] });
    assert_eq!(applied(by_pattern, text).content, left);
    let due = json!([{ "name": "h", "keywords": ["due"], "action": "highlight" }]);
    let marked = applied(
        json!({ "rules": due, "match": { "addresses": "leave" } }),
        "https://example.com/due?id=981",
    );
    assert_eq!(marked.marks, []);
}

#[test]
fn large_patterns_are_limited_together() {
    let document = |more: Value| {
        let mut document = json!({ "rules": [{ "name": "r", "action": "block", "patterns": [
            r"\b\w{1,21}\b", r"\b[\w.+-]{1,64}@[\w-]{1,63}\.\w{2,}\b"] }] });
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Engine::new(&Document::parse(document.to_string().as_bytes()).unwrap())
    };
    let bytes = document(json!({})).unwrap().heap_bytes();
    assert!((2 << 20..32 << 20).contains(&bytes), "{bytes}");
    let problem = document(json!({ "pattern_mib": 1 })).unwrap_err()[0].to_string();
    assert!(
        problem.contains("more than 1 MiB") && problem.contains("`pattern_mib`"),
        "{problem}"
    );
    assert!(document(json!({ "pattern_mib": 257 })).is_err());
}
