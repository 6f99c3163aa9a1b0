//! Inputs and actions in words, one line each: for the tests and the simulation's traces.
//!
//! `e2.1` is the second reminder of event 2, `m7` the message 7 of a mailbox.

use std::fmt::{self, Display, Formatter};

use super::{
    Action, Company, Entry, HeldBack, Input, Item, MailboxSummary, NoAnswer, Page, Parking,
    Refusal, Removal, Resolution, Settled, Share, Undelivered,
};
use bellhop_protocol::token::{Source, UserId};

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { sequence, index: 0 } => write!(f, "e{sequence}"),
            Self::Event { sequence, index } => write!(f, "e{sequence}.{index}"),
            Self::Parked { sequence } => write!(f, "m{sequence}"),
        }
    }
}

impl Display for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(reminders) => {
                write!(
                    f,
                    "event: {}",
                    words(reminders, |(user, entry)| format!("{user} {entry}"))
                )
            }
            Self::MailboxFound(
                user,
                MailboxSummary {
                    first, last, count, ..
                },
            ) => {
                write!(f, "found {count} for {user}, {first} to {last}")
            }
            Self::RouteUp {
                user,
                instance,
                revision,
            } => write!(f, "route up {user} {} @{revision}", instance.name),
            Self::RouteDown {
                user,
                instance,
                revision,
            } => write!(f, "route down {user} {instance} @{revision}"),
            Self::CaughtUpWithRoutes => f.write_str("caught up with routes"),
            Self::Associates { user, associates } => {
                write!(f, "{user}'s associates: {}", joined(associates, ", "))
            }
            Self::RoutesFound {
                user,
                associate,
                instances,
            } => {
                let instances = words(instances, |instance| instance.name.to_string());
                write!(f, "routes of {associate} for {user}: {instances}")
            }
            Self::Delivered {
                instance,
                company,
                answer,
            } => {
                write!(f, "{}{company} took it: {}", instance.name, taken(answer))
            }
            Self::HeartbeatAnswered { instance, answer } => {
                write!(f, "{} holds: {}", instance.name, held(answer))
            }
            Self::Parked(sequences) => write!(f, "parked at {}", joined(sequences, " ")),
            Self::ParkRefused => f.write_str("park refused"),
            Self::MailboxRead {
                user,
                page:
                    Page {
                        entries,
                        next,
                        is_last,
                    },
            } => {
                let more = if *is_last { "the last" } else { "more" };
                write!(
                    f,
                    "read of {user}: {}; next {next}, {more}",
                    joined(entries, " ")
                )
            }
            Self::MailboxCounted { user, found: None } => write!(f, "counted {user}: no fewer"),
            Self::MailboxCounted {
                user,
                found: Some(found),
            } => {
                let source = |source: &Option<Source>| {
                    source
                        .as_ref()
                        .map_or("no source", Source::as_str)
                        .to_owned()
                };
                let of = |(whose, all): &(Option<Source>, Vec<u64>)| {
                    format!("{} of {}", all.len(), source(whose))
                };
                write!(f, "counted {user}: {}", words(found, of))
            }
            Self::Tick => f.write_str("tick"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

fn taken(answer: &Result<Vec<(usize, usize, Refusal)>, Undelivered>) -> String {
    match answer {
        Ok(refused) if refused.is_empty() => "all".into(),
        Ok(refused) => format!(
            "but for {}",
            words(refused, |(share, place, why)| format!(
                "{share}.{place} {why:?}"
            ))
        ),
        Err(Undelivered::Unanswered(why)) => format!("{why:?}"),
        Err(why) => format!("{why:?}"),
    }
}

fn held(answer: &Result<Vec<UserId>, NoAnswer>) -> String {
    answer
        .as_ref()
        .map_or_else(|why| format!("{why:?}"), |users| joined(users, ", "))
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.item.fmt(f)?;
        self.expires_at
            .iter()
            .try_for_each(|at| write!(f, " until {at}"))
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver {
                instance,
                company,
                shares,
                ..
            } => {
                write!(
                    f,
                    "deliver {}{company}: {}",
                    instance.name,
                    joined(shares, ", ")
                )
            }
            Self::CatchUpWithRoutes => f.write_str("catch up with routes"),
            Self::LookUpRoutes { user, associate } => write!(f, "look up {associate} for {user}"),
            Self::Heartbeat { instance, users } => {
                write!(f, "heartbeat {}: {}", instance.name, joined(users, ", "))
            }
            Self::DropRoute {
                user,
                instance,
                revision,
            } => write!(f, "drop route {user} {instance} @{revision}"),
            Self::Park(batch) => write!(f, "park {}", joined(batch, ", ")),
            Self::ReadMailbox { user, from, last } => write!(f, "read {user} {from} to {last}"),
            Self::CountMailbox { user, known: None } => write!(f, "count {user}"),
            Self::CountMailbox {
                user,
                known: Some(known),
            } => write!(f, "count {user}, if fewer than {known}"),
            Self::Settle(settled) => f.write_str(&joined(settled, "; ")),
            Self::Forget(items) => write!(f, "forget {}", joined(items, " ")),
            Self::HoldBack(HeldBack {
                user,
                item,
                instance,
                tries,
                ..
            }) => {
                write!(
                    f,
                    "hold back {user} {item}: {tries} times unanswered by {}",
                    instance.name
                )
            }
        }
    }
}

impl Display for Company {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Alone { " alone" } else { "" })
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.user, joined(&self.items, " "))?;
        self.to.iter().try_for_each(|to| write!(f, " to {to}"))
    }
}

impl Display for Parking {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.user, self.item)?;
        self.rerouted_to
            .iter()
            .try_for_each(|to| write!(f, " that {to} got"))
    }
}

impl Display for Settled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.item, self.resolution)?;
        match self.removal {
            Removal::Event => Ok(()),
            Removal::MailboxUpTo(sequence) => write!(f, ", purge up to {sequence}"),
            Removal::MailboxOnly(sequence) => write!(f, ", purge only {sequence}"),
        }
    }
}

impl Display for Resolution {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { by, missed: 0 } => write!(f, "delivered by {}", joined(by, " ")),
            Self::Delivered { by, missed } => {
                write!(f, "delivered by {}, missed by {missed}", joined(by, " "))
            }
            Self::Rerouted { instance, to } => write!(f, "rerouted to {to} by {instance}"),
            Self::Parked => f.write_str("parked"),
            Self::Expired => f.write_str("expired"),
            Self::Merged { into } => write!(f, "merged into {into}"),
            Self::MailboxFull => f.write_str("refused: mailbox full"),
        }
    }
}

fn joined<T: Display>(things: &[T], between: &str) -> String {
    things
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

fn words<T>(things: &[T], word: impl Fn(&T) -> String) -> String {
    things.iter().map(word).collect::<Vec<_>>().join(", ")
}
