//! Small histories, good ones and bad ones.

use super::*;
use crate::logs::{Fault, Line, Micros};

const SECOND: Micros = 1_000_000;

/// Two reminders for alice, published and taken one second after the other, long before a fault.
fn good() -> History {
    let reminder = |id: &str| Reminder {
        source: "billing".into(),
        id: id.into(),
        user: "alice".into(),
    };
    let line = |second: Micros, event| Line {
        at: second * SECOND,
        event,
    };
    let sent = |set, id: &str| Published::Sent {
        set,
        reminders: vec![(id.to_owned(), "alice".to_owned())],
    };
    let published = vec![
        line(1, sent(0, "a")),
        line(1, Published::Acknowledged { set: 0 }),
        line(2, sent(1, "b")),
        line(2, Published::Acknowledged { set: 1 }),
    ];
    let served = vec![
        Line {
            at: 0,
            event: Served::Started,
        },
        Line {
            at: 0,
            event: Served::Connected {
                users: vec!["alice".into()],
            },
        },
        Line {
            at: 2 * SECOND,
            event: Served::Accepted(reminder("a")),
        },
        Line {
            at: 3 * SECOND,
            event: Served::Accepted(reminder("b")),
        },
    ];
    let faults = vec![
        Line {
            at: 20 * SECOND,
            event: Fault::Begins {
                kind: "bellhop_pause".into(),
                target: "0".into(),
            },
        },
        Line {
            at: 21 * SECOND,
            event: Fault::Ends,
        },
        Line {
            at: 25 * SECOND,
            event: Fault::Healed,
        },
    ];
    History {
        published: [("billing".to_owned(), published)].into(),
        served: [("app-1".to_owned(), served)].into(),
        faults,
        outcomes: vec![outcome(&reminder("a"), 2), outcome(&reminder("b"), 3)],
        waiting: Vec::new(),
    }
}

fn outcome(reminder: &Reminder, second: i64) -> Outcome {
    Outcome {
        reminder: reminder.clone(),
        outcome: "delivered".into(),
        decided_at: jiff::Timestamp::from_second(second).unwrap(),
        instance: Some("app-1".into()),
    }
}

/// Returns the errors in the good history after this change.
fn wrong_after(change: impl FnOnce(&mut History)) -> Vec<Wrong> {
    let mut history = good();
    change(&mut history);
    check(&history).wrong.into_keys().collect()
}

fn takes(history: &mut History) -> &mut Vec<Line<Served>> {
    history.served.get_mut("app-1").unwrap()
}

/// The n-th of two takes comes once more at this second.
fn take_again(history: &mut History, n: usize, first: Micros, again: Micros) {
    let takes = takes(history);
    takes[2 + n].at = first * SECOND;
    let more = Line {
        at: again * SECOND,
        ..takes[2 + n].clone()
    };
    takes.push(more);
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(wrong_after(|_| {}), []);
}

#[test]
fn a_loss_is_found() {
    assert_eq!(
        wrong_after(|history| drop(history.outcomes.pop())),
        [Wrong::Lost]
    );
    let nothing_at_all = |history: &mut History| {
        history.outcomes.pop();
        takes(history).pop();
    };
    assert_eq!(wrong_after(nothing_at_all), [Wrong::Lost]);
    let unknown = |history: &mut History| {
        nothing_at_all(history);
        history.published.get_mut("billing").unwrap()[3].event = Published::GivenUp { set: 1 };
    };
    assert_eq!(wrong_after(unknown), [], "it was never acknowledged");
    let announced = |history: &mut History| {
        unknown(history);
        let parked = Outcome {
            outcome: "parked".into(),
            instance: None,
            ..outcome(&good().outcomes[1].reminder, 3)
        };
        history.outcomes.push(parked);
    };
    assert_eq!(wrong_after(announced), [Wrong::Lost], "Bellhop had it");
}

#[test]
fn an_outcome_must_be_true() {
    assert_eq!(
        wrong_after(|history| drop(takes(history).pop())),
        [Wrong::DeliveredToNobody]
    );
    assert_eq!(
        wrong_after(|history| history.outcomes[0].outcome = "expired".into()),
        [Wrong::NotDelivered]
    );
    assert_eq!(
        wrong_after(|history| history.outcomes[0].reminder.id = "x".into()),
        [Wrong::Lost, Wrong::Invented]
    );
}

#[test]
fn mailboxes_are_looked_into() {
    let wait = |history: &mut History| history.waiting.push(history.outcomes[1].reminder.clone());
    assert_eq!(
        wrong_after(wait),
        [Wrong::BothDoneAndWaiting, Wrong::LeftInMailbox]
    );
    let only_wait = |history: &mut History| {
        wait(history);
        history.outcomes.pop();
        takes(history).pop();
    };
    assert_eq!(wrong_after(only_wait), [Wrong::LeftInMailbox]);
    let while_away = |history: &mut History| {
        only_wait(history);
        takes(history).push(Line {
            at: 5 * SECOND,
            event: Served::Left {
                users: vec!["alice".into()],
            },
        });
    };
    assert_eq!(wrong_after(while_away), []);
    let twice = |history: &mut History| {
        while_away(history);
        history.waiting.push(history.waiting[0].clone());
    };
    assert_eq!(wrong_after(twice), [Wrong::WaitingTwice]);
}

#[test]
fn a_swap_is_found() {
    let swap = |history: &mut History| {
        let takes = takes(history);
        (takes[2].at, takes[3].at) = (takes[3].at, takes[2].at);
    };
    assert_eq!(wrong_after(swap), [Wrong::OutOfOrder]);
    let unsure = |history: &mut History| {
        swap(history);
        history.published.get_mut("billing").unwrap()[1].event = Published::GivenUp { set: 0 };
    };
    assert_eq!(wrong_after(unsure), [], "it is unknown when it was stored");
    let repeated = |history: &mut History| take_again(history, 0, 19, 22);
    assert_eq!(
        wrong_after(repeated),
        [Wrong::OutOfOrder],
        "the first time counts"
    );
    let in_order = |history: &mut History| {
        take_again(history, 0, 18, 22);
        takes(history)[3].at = 19 * SECOND;
    };
    assert_eq!(wrong_after(in_order), []);
}

#[test]
fn a_repeat_needs_a_fault_between() {
    let again = |first, again| wrong_after(move |history| take_again(history, 1, first, again));
    assert_eq!(again(3, 4), [Wrong::RepeatedWithoutFault]);
    assert_eq!(
        again(3, 21),
        [Wrong::RepeatedWithoutFault],
        "it was not in flight when the fault began"
    );
    assert_eq!(
        again(18, 19),
        [Wrong::RepeatedWithoutFault],
        "the fault had not begun"
    );
    assert_eq!(
        again(30, 31),
        [Wrong::RepeatedWithoutFault],
        "the fault was over"
    );
    assert_eq!(again(19, 22), []);
    assert_eq!(again(22, 24), []);
}

#[test]
fn a_reminder_reaches_its_user() {
    let astray = |history: &mut History| {
        let Served::Accepted(reminder) = &mut takes(history)[3].event else {
            unreachable!()
        };
        reminder.user = "bob".into();
    };
    assert_eq!(
        wrong_after(astray),
        [Wrong::DeliveredToNobody, Wrong::Misdelivered]
    );
}

#[test]
fn a_second_final_outcome_is_always_wrong() {
    let again = |decided| {
        wrong_after(|history| {
            history.outcomes[1].decided_at = jiff::Timestamp::from_second(22).unwrap();
            let second = outcome(&good().outcomes[1].reminder, decided);
            history.outcomes.push(second);
        })
    };
    // A process stood still at the first of these times.
    for decided in [21, 23, 5] {
        assert_eq!(again(decided), [Wrong::SecondOutcome]);
    }
}

#[test]
fn gaps_and_repeats_are_counted_by_fault() {
    let mut history = good();
    let served = history.served.remove("app-1").unwrap();
    history.served.insert(STEADY.into(), served);
    history
        .outcomes
        .iter_mut()
        .for_each(|outcome| outcome.instance = Some(STEADY.into()));
    let takes = history.served.get_mut(STEADY).unwrap();
    takes[2].at = 19 * SECOND;
    takes[3].at = 23 * SECOND;
    let again = Line {
        at: 24 * SECOND,
        ..takes[3].clone()
    };
    takes.push(again);
    let verdict = check(&history);
    assert!(verdict.wrong.is_empty(), "{verdict}");
    let shown = verdict.to_string();
    assert!(
        shown.contains("| bellhop_pause | 1 | 1 | 4.0 s |"),
        "{shown}"
    );
}
