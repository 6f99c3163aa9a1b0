//! What the demo's business systems have to say.

/// The app servers.
pub(crate) const INSTANCES: [&str; 2] = ["app-east", "app-west"];
/// The number of users.
pub(crate) const USERS: usize = 300;
/// The user whom the demo's story is about: the first one.
pub(crate) const ALICE: usize = 0;
/// The demo's sources.
pub(crate) const SOURCES: [&str; 3] = ["billing", "claims", "hr"];

/// A kind of reminder. `{n}` in its texts becomes a number, `{eur}` an amount, `{day}` a day of the week.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The headline.
    pub title: &'static str,
    /// The text.
    pub content: &'static str,
    /// Its urgency.
    pub priority: &'static str,
    /// Beside the source's own name.
    pub tag: &'static str,
    /// Whether it is of no use after a week.
    pub expires: bool,
}

const fn kind(
    title: &'static str,
    content: &'static str,
    priority: &'static str,
    tag: &'static str,
) -> Kind {
    Kind {
        title,
        content,
        priority,
        tag,
        expires: false,
    }
}

const fn expiring(kind: Kind) -> Kind {
    Kind {
        expires: true,
        ..kind
    }
}

/// Of one source.
pub(crate) const BILLING: &[Kind] = &[
    expiring(kind(
        "Invoice due",
        "Invoice {n} over EUR {eur} is due on {day}",
        "normal",
        "invoice",
    )),
    kind(
        "Payment received",
        "Thank you: EUR {eur} for invoice {n} arrived",
        "low",
        "payment",
    ),
    kind(
        "Payment failed",
        "The card for invoice {n} was declined; we try again on {day}",
        "high",
        "payment",
    ),
    kind(
        "Card expires",
        "The card ending in {n} expires at the end of the month",
        "normal",
        "card",
    ),
];

/// Of one source.
pub(crate) const CLAIMS: &[Kind] = &[
    kind(
        "Claim approved",
        "Claim {n} was approved; EUR {eur} will arrive by {day}",
        "high",
        "decision",
    ),
    kind(
        "Document missing",
        "Claim {n} needs the repair bill before it can go on",
        "normal",
        "document",
    ),
    kind(
        "Inspection booked",
        "An expert looks at the damage of claim {n} on {day}",
        "normal",
        "visit",
    ),
    expiring(kind(
        "Callback wanted",
        "Please call the customer of claim {n} back today",
        "urgent",
        "call",
    )),
];

/// Of one source.
pub(crate) const HR: &[Kind] = &[
    expiring(kind(
        "Timesheet missing",
        "The timesheet of week {n} is still open; please send it by {day}",
        "high",
        "time",
    )),
    kind(
        "Leave approved",
        "Your leave from {day} on was approved (request {n})",
        "normal",
        "leave",
    ),
    kind(
        "Training",
        "The training in room {n} begins on {day} at 10:00",
        "low",
        "training",
    ),
    kind("Payslip ready", "Your payslip {n} is ready", "low", "pay"),
];

/// Who may look in through the web terminal; none of them is one of the demo's users.
pub(crate) const VISITORS: [&str; 3] = ["robin", "sam", "kim"];

/// For them.
pub(crate) const VISITS: &[Kind] = &[
    kind(
        "Parcel",
        "A parcel for you is at the front desk; it is due back on {day}",
        "low",
        "desk",
    ),
    kind(
        "Room changed",
        "Your meeting on {day} is now in room {n}",
        "normal",
        "desk",
    ),
    kind(
        "Signature wanted",
        "Invoice {n} over EUR {eur} is due today and waits for you",
        "high",
        "desk",
    ),
    kind(
        "Visitor waits",
        "A visitor waits for you at the front desk about claim {n}",
        "urgent",
        "desk",
    ),
];

/// The demo's rules: a tag, and its document.
pub(crate) const RULES: [(&str, &str); 3] = [
    (
        "card",
        r#"{"rules": [{"name": "card numbers", "patterns": ["\\b\\d{4}\\b"], "action": "mask", "with": "•"}]}"#,
    ),
    (
        "call",
        r#"{"rules": [{"name": "today", "keywords": ["today"], "action": "replace", "with": "TODAY"}]}"#,
    ),
    (
        "desk",
        r#"{"rules": [{"name": "due", "keywords": ["due", "due today"], "action": "highlight"},
        {"name": "invoices", "patterns": ["invoice \\d+"], "action": "link", "href": "https://example.com/invoices"}]}"#,
    ),
];

const FIRST: [&str; 40] = [
    "alice", "bob", "carol", "dave", "emma", "frank", "grace", "henry", "ines", "josé", "karin",
    "liam", "mia", "noah", "olga", "paul", "quinn", "rosa", "søren", "tara", "umar", "vera",
    "wendy", "xenia", "yusuf", "zoë", "anton", "bianca", "chen", "dora", "elif", "felix", "gina",
    "hugo", "ivan", "jana", "kofi", "lena", "marek", "nadia",
];
const LAST: [&str; 8] = [
    "adler", "berg", "costa", "dubois", "evans", "fischer", "garcía", "horvat",
];

/// The demo's users; alice is the first.
pub(crate) fn users(count: usize) -> Vec<String> {
    let name = |at: usize| match (at / FIRST.len()).checked_sub(1) {
        None => FIRST[at].to_owned(),
        Some(last) => format!("{}.{}", FIRST[at % FIRST.len()], LAST[last % LAST.len()]),
    };
    (0..count).map(name).collect()
}

/// Returns a text with its blanks filled in by chance.
pub(crate) fn fill(text: &str, chance: &mut fastrand::Rng) -> String {
    const DAYS: [&str; 5] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"];
    let (euros, cents) = (chance.u32(5..2_000), chance.u32(0..100));
    text.replace("{n}", &chance.u32(1_000..10_000).to_string())
        .replace("{eur}", &format!("{euros}.{cents:02}"))
        .replace("{day}", DAYS[chance.usize(..DAYS.len())])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use bellhop_core::rules::engine::Engine;
    use bellhop_protocol::rules::document::Document;

    #[test]
    fn demo_rules_match_existing_tags() {
        for (tag, document) in RULES {
            let document = Document::parse(document.as_bytes()).unwrap();
            let engine = Engine::new(&document).unwrap();
            let mut kinds = BILLING
                .iter()
                .chain(CLAIMS)
                .chain(HR)
                .chain(VISITS)
                .filter(|kind| kind.tag == tag);
            let text = fill(
                kinds.next().unwrap().content,
                &mut fastrand::Rng::with_seed(1),
            );
            assert_eq!(engine.find(&text).unwrap().len(), 1, "{text}");
        }
    }

    #[test]
    fn users_are_distinct_and_no_blank_stays() {
        let users = users(300);
        assert_eq!(users.iter().collect::<HashSet<_>>().len(), 300);
        assert!(
            VISITORS
                .iter()
                .all(|visitor| !users.iter().any(|user| user == visitor))
        );
        let mut chance = fastrand::Rng::with_seed(1);
        for kind in BILLING.iter().chain(CLAIMS).chain(HR).chain(VISITS) {
            assert!(!fill(kind.content, &mut chance).contains(['{', '}']));
        }
    }
}
