use std::time::{Duration, Instant};

use bellhop_protocol::reminder::duplicate::Duplicate;

use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;

/// A ledger, and the shortest ways to write into it: one source, `billing`, and two app servers.
struct Book {
    ledger: Ledger,
    now: Instant,
}

impl Book {
    fn new() -> Self {
        let ledger = Ledger::new(
            &["billing", "hr"],
            &["alice".into(), "bob".into()],
            &["app-1", "app-2"],
        );
        Self {
            ledger,
            now: Instant::now(),
        }
    }

    fn publish(&mut self, users: &[usize]) -> Vec<String> {
        users
            .iter()
            .map(|user| self.ledger.publish(self.now, 0, *user, true))
            .collect()
    }

    fn accept(&mut self, id: &str, user: &str, merged: &[&str]) -> Option<Duration> {
        self.now += Duration::from_millis(1);
        let duplicate = |id: &&str| Duplicate {
            id: (*id).to_owned(),
            data: None,
        };
        let merged: Vec<_> = merged.iter().map(duplicate).collect();
        let accepted = Accepted {
            source: "billing",
            id,
            user,
            merged: &merged,
            has_waited: false,
        };
        self.ledger.accept(self.now, &accepted)
    }

    fn outcome(&mut self, id: &str, outcome: &str, detail: &str) {
        let detail = Some(detail.to_owned());
        let (instance, into) = if outcome == "merged" {
            (None, detail)
        } else {
            (detail, None)
        };
        let (id, source, outcome) = (id.to_owned(), "billing".to_owned(), outcome.to_owned());
        self.ledger.outcome(&Record {
            id,
            source,
            outcome,
            instance,
            into,
            ..Record::default()
        });
    }

    /// As it should be: accepted, then recorded.
    fn deliver(&mut self, id: &str, user: &str) {
        self.accept(id, user, &[]);
        self.outcome(id, "delivered", "app-1");
    }

    fn end(mut self) -> Vec<(Trouble, u64, String)> {
        self.ledger.close();
        self.ledger
            .troubles()
            .iter()
            .map(|(trouble, (count, first))| (*trouble, *count, first.clone()))
            .collect()
    }
}

fn first(trouble: Trouble, id: &str) -> Vec<(Trouble, u64, String)> {
    vec![(trouble, 1, id.to_owned())]
}

#[test]
fn correct_run_reports_nothing() {
    let mut book = Book::new();
    assert_eq!(
        book.publish(&[ALICE, BOB, ALICE, ALICE]),
        ["billing-0", "billing-1", "billing-2", "billing-3"]
    );
    let bad = book.ledger.publish(book.now, 0, BOB, false);
    book.outcome(&bad, "rejected", "");
    book.outcome("billing-2", "merged", "billing-0");
    book.outcome("billing-0", "parked", "");
    assert_eq!(
        (
            book.ledger.parked(),
            book.ledger.due(ALICE, book.now + Duration::from_secs(1))
        ),
        ((1, 1), 2)
    );
    assert!(book.accept("billing-0", "alice", &["billing-2"]).is_some());
    assert_eq!(book.ledger.parked(), (0, 0));
    book.outcome("billing-0", "delivered", "app-2");
    book.deliver("billing-1", "bob");
    book.deliver("billing-3", "alice");
    let counts = Counts {
        published: 5,
        delivered: 3,
        merged: 1,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!((book.ledger.counts(), book.ledger.open()), (&counts, 0));
    assert_eq!(book.end(), []);
}

#[test]
fn a_planted_loss_is_found() {
    let mut book = Book::new();
    book.publish(&[ALICE, ALICE]);
    book.deliver("billing-1", "alice");
    assert_eq!(book.end(), first(Trouble::Lost, "billing-0"));

    let mut book = Book::new();
    book.publish(&[ALICE]);
    book.outcome("billing-0", "delivered", "app-1");
    assert_eq!(
        book.end(),
        first(Trouble::Lost, "billing-0"),
        "the router says so, but nobody has it"
    );

    let mut book = Book::new();
    book.publish(&[ALICE, ALICE]);
    book.outcome("billing-1", "merged", "billing-0");
    book.deliver("billing-0", "alice");
    assert_eq!(
        book.end(),
        first(Trouble::Lost, "billing-1"),
        "the other one does not name it"
    );
}

#[test]
fn a_planted_repeat_is_found() {
    for is_settled in [false, true] {
        let mut book = Book::new();
        book.publish(&[ALICE]);
        book.accept("billing-0", "alice", &[]);
        if is_settled {
            book.outcome("billing-0", "delivered", "app-1");
            assert_eq!(book.ledger.open(), 0);
        }
        assert!(book.accept("billing-0", "alice", &[]).is_some());
        if !is_settled {
            book.outcome("billing-0", "delivered", "app-1");
        }
        assert_eq!(book.end(), first(Trouble::Repeated, "billing-0"));
    }

    let mut book = Book::new();
    book.publish(&[ALICE, ALICE]);
    book.accept("billing-0", "alice", &["billing-1"]);
    book.accept("billing-1", "alice", &[]);
    book.outcome("billing-0", "delivered", "app-1");
    book.outcome("billing-1", "merged", "billing-0");
    assert_eq!(
        book.end(),
        first(Trouble::Repeated, "billing-1"),
        "merged, and delivered by itself too"
    );
}

#[test]
fn a_planted_swap_is_found() {
    let mut book = Book::new();
    book.publish(&[ALICE, BOB, ALICE]);
    book.deliver("billing-2", "alice");
    book.deliver("billing-1", "bob");
    book.deliver("billing-0", "alice");
    assert_eq!(
        (book.ledger.troubles_of(ALICE), book.ledger.troubles_of(BOB)),
        (1, 0)
    );
    assert_eq!(book.end(), first(Trouble::OutOfOrder, "billing-0"));
}

#[test]
fn sources_have_no_order_among_each_other() {
    let mut book = Book::new();
    book.publish(&[ALICE]);
    let hr = book.ledger.publish(book.now, 1, ALICE, true);
    let accepted = Accepted {
        source: "hr",
        id: &hr,
        user: "alice",
        merged: &[],
        has_waited: true,
    };
    book.ledger.accept(book.now, &accepted);
    book.deliver("billing-0", "alice");
    assert!(book.ledger.troubles().is_empty());
}

#[test]
fn other_planted_troubles_are_found() {
    let cases: [(&[(&str, &str)], Trouble); 6] = [
        (&[("expired", "")], Trouble::Refused),
        (&[("rejected", "")], Trouble::Refused),
        (&[("parked", "")], Trouble::LeftInMailbox),
        (&[("accept", "alice")], Trouble::NoOutcome),
        (
            &[("accept", "alice"), ("expired", "")],
            Trouble::WrongOutcome,
        ),
        (
            &[("accept", "bob"), ("delivered", "app-1")],
            Trouble::Misdelivered,
        ),
    ];
    for (steps, trouble) in cases {
        let mut book = Book::new();
        book.publish(&[ALICE]);
        for (step, detail) in steps {
            match *step {
                "accept" => drop(book.accept("billing-0", detail, &[])),
                outcome => book.outcome("billing-0", outcome, detail),
            }
        }
        assert_eq!(book.end(), first(trouble, "billing-0"), "{steps:?}");
    }

    let mut book = Book::new();
    book.publish(&[ALICE]);
    book.deliver("billing-0", "alice");
    book.outcome("billing-0", "delivered", "app-1");
    assert_eq!(book.end(), first(Trouble::SecondOutcome, "billing-0"));

    let mut book = Book::new();
    let bad = book.ledger.publish(book.now, 0, ALICE, false);
    book.deliver(&bad, "alice");
    assert_eq!(
        book.end(),
        first(Trouble::WrongOutcome, "billing-0"),
        "it was bad, and delivered all the same"
    );
}

#[test]
fn visitor_beside_demo_device_is_fine() {
    let mut book = Book::new();
    book.publish(&[BOB, BOB]);
    for (id, first) in [("billing-0", "desk-3"), ("billing-1", "app-1")] {
        book.accept(id, "bob", &[]);
        let (instance, instances) = (
            Some(first.to_owned()),
            vec!["app-1".to_owned(), "desk-3".to_owned()],
        );
        let (id, source, outcome) = (id.to_owned(), "billing".to_owned(), "delivered".to_owned());
        book.ledger.outcome(&Record {
            id,
            source,
            outcome,
            instance,
            instances,
            ..Record::default()
        });
    }
    assert_eq!(
        *book.ledger.counts(),
        Counts {
            published: 2,
            delivered: 2,
            ..Counts::default()
        }
    );
    assert_eq!(book.end(), []);
}

#[test]
fn visitors_are_counted_apart_and_are_no_trouble() {
    let mut book = Book::new();
    // Their own reminders, whatever they call them.
    for id in [
        "7#0",
        "billing-",
        "billing-00",
        "billing-+0",
        "billing-9",
        "hr-0",
    ] {
        assert_eq!(book.accept(id, "alice", &[]), None);
        book.outcome(id, "delivered", "app-1");
    }
    // Their own routes: the demo's app servers see nothing of what they take.
    book.publish(&[ALICE, ALICE, ALICE, BOB, BOB]);
    book.outcome("billing-1", "merged", "billing-0");
    book.outcome("billing-0", "parked", "");
    book.outcome("billing-0", "delivered", "desk-3");
    book.outcome("billing-3", "delivered", "desk-4");
    book.outcome("billing-4", "merged", "billing-3");
    book.deliver("billing-2", "alice");
    let counts = Counts {
        published: 5,
        delivered: 1,
        elsewhere: 4,
        visitors: 6,
        ..Counts::default()
    };
    assert_eq!(
        (
            book.ledger.counts(),
            book.ledger.open(),
            book.ledger.parked()
        ),
        (&counts, 0, (0, 0))
    );
    assert_eq!(
        book.ledger
            .elsewhere()
            .clone()
            .into_iter()
            .collect::<Vec<_>>(),
        [("desk-3".into(), 1), ("desk-4".into(), 1)]
    );
    assert_eq!(book.end(), []);
}
