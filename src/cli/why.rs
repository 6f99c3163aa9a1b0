//! `bellhop why`: what became of one reminder. The history tells its trail, or, where none is kept,
//! the stream of outcomes; where it lies now, streams alone can tell.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::output::{Output, Table, plain, plural, time};
use super::scan::{Stored, scan};
use super::{CliError, SettingsArgs, mailbox, survey};
use crate::event::Event;
use crate::headers;
use crate::nats::api::{ApiError, ask};
use crate::nats::mailbox::count;
use crate::nats::{Nats, schedule};
use crate::reminder::history::Step;
use crate::reminder::id::MAX_ID_BYTES;
use crate::reminder::outcome::Batch;
use crate::token::{InstanceName, Source, UserId};
use crate::wire::member::HeldBack;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop why billing inv-981
  bellhop why billing inv-981 --json | jq -r '.trail[].outcome'
  bellhop why billing meeting-7 --user alice

Queries the history. Without one, reads the source's outcomes from their stream, which keeps them for \
streams.outcomes_age (7 days); this can be slow for a busy source.")]
pub(super) struct Args {
    /// The business system that published it
    source: Source,
    /// The reminder's id
    id: String,
    /// Only this user's; else those of all users who have a reminder of this id
    #[arg(long)]
    user: Option<UserId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The reminder to look for.
struct Wanted<'a> {
    source: &'a Source,
    id: &'a str,
    /// The user; without one, all users of the id.
    user: Option<&'a UserId>,
    /// The id as it stands in JSON: most messages do not have it, and need not be read.
    needle: Vec<u8>,
}

/// The current place of the reminder, if it has one.
#[derive(Debug, Serialize)]
#[serde(tag = "in", rename_all = "lowercase")]
enum Place {
    /// In the user's mailbox, as itself or as the copy of a rerouted one.
    Mailbox {
        user: UserId,
        sequence: u64,
        at: Timestamp,
        before: usize,
        /// The instance that leaves it unanswered, and how often it was tried alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        unanswered: Option<Unanswered>,
    },
    /// To be delivered later.
    Scheduled { user: UserId, deliver_at: Timestamp },
    /// In the stream of refused input, alone or in a set that was refused as a whole.
    Rejected {
        sequence: u64,
        at: Timestamp,
        code: String,
        detail: String,
    },
}

#[derive(Debug, Serialize)]
struct Unanswered {
    instance: InstanceName,
    tries: u32,
}

#[derive(Serialize)]
struct Answer<'a> {
    source: &'a Source,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reminder: Option<&'a RawValue>,
    trail: &'a [Step],
    /// The known outcomes for each user, if there are several. The fields before this one are the
    /// first one's.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    users: &'a [Known],
    places: Vec<Place>,
}

/// The known outcomes of a user's reminder.
#[derive(Default, Serialize)]
struct Known {
    user: Option<UserId>,
    /// As it was delivered, where there is a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    reminder: Option<Box<RawValue>>,
    /// Its outcomes, oldest first.
    trail: Vec<Step>,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let Args {
        source,
        id,
        user,
        json,
    } = args;
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(CliError::Usage(format!(
            "an id has 1 to {MAX_ID_BYTES} bytes"
        )));
    }
    let (_, nats) = settings.connect().await?;
    let needle = serde_json::to_vec(&id).expect("text is JSON");
    let wanted = Wanted {
        source: &source,
        id: &id,
        user: user.as_ref(),
        needle,
    };
    let known = match by_history(&nats, &wanted).await {
        Ok(known) => known,
        Err(ApiError::Unknown(_)) => Vec::new(),
        Err(ApiError::NoResponder | ApiError::Away(_)) => by_stream(&nats, &wanted).await?,
        Err(error) => return Err(error.into()),
    };
    let places = places(&nats, &wanted, &known).await?;
    if known.is_empty() && places.is_empty() {
        return Err(CliError::Failed(unknown(&nats, &wanted).await?));
    }
    let mut output = Output::new();
    if json {
        let first = known.first();
        output.json(&Answer {
            source: &source,
            id: &id,
            reminder: first.and_then(|one| one.reminder.as_deref()),
            trail: first.map_or(&[], |one| &one.trail),
            users: if known.len() > 1 { &known } else { &[] },
            places,
        })?;
    } else {
        print(&mut output, &known, &places)?;
    }
    output.flush()
}

impl Wanted<'_> {
    fn may_be_in(&self, payload: &[u8]) -> bool {
        payload
            .windows(self.needle.len())
            .any(|window| window == self.needle)
    }

    /// The place of the reminder in a message of events or of a mailbox.
    fn is_in_event(&self, payload: &bytes::Bytes) -> bool {
        let Ok(event) = Event::decode(payload) else {
            return false;
        };
        (0..event.bodies.len()).any(|at| {
            event.set_of(at).source == *self.source && event.index.reminders[at].id == self.id
        })
    }

    /// Returns true if a published set or a refused reminder is, or contains, the one to look for.
    fn is_in_json(&self, payload: &[u8]) -> bool {
        let Ok(json) = serde_json::from_slice::<Value>(payload) else {
            return false;
        };
        let is_other = |value: &Value| {
            self.user
                .is_some_and(|user| value["user"].is_string() && value["user"] != user.as_str())
        };
        let has_id = |value: &Value| value["id"] == self.id && !is_other(value);
        has_id(&json)
            || json["reminders"]
                .as_array()
                .is_some_and(|reminders| reminders.iter().any(has_id))
    }
}

/// Returns the outcomes from the history, by user.
async fn by_history(nats: &Nats, wanted: &Wanted<'_>) -> Result<Vec<Known>, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        reminder: Box<RawValue>,
        trail: Vec<Step>,
        #[serde(default)]
        users: Vec<UserId>,
    }
    #[derive(Deserialize)]
    struct Said {
        user: Option<UserId>,
    }
    let about = async |user: Option<&UserId>| {
        let query = json!({ "source": wanted.source, "id": wanted.id, "user": user });
        let Answer {
            reminder,
            trail,
            users,
        } = ask(nats, "why", &query).await?;
        let user = serde_json::from_str(reminder.get())
            .ok()
            .and_then(|Said { user }| user);
        let known = Known {
            user,
            reminder: Some(reminder),
            trail,
        };
        Ok::<_, ApiError>((known, users))
    };
    let (first, users) = about(wanted.user).await?;
    let mut known = vec![first];
    for user in users.iter().skip(1) {
        known.push(about(Some(user)).await?.0);
    }
    Ok(known)
}

/// Returns the outcomes from the stream of outcomes, by user.
async fn by_stream(nats: &Nats, wanted: &Wanted<'_>) -> Result<Vec<Known>, CliError> {
    #[derive(Deserialize)]
    struct Record {
        id: String,
        #[serde(default)]
        user: Option<String>,
        #[serde(flatten)]
        step: Step,
    }
    let mut found: BTreeMap<Option<UserId>, Known> = BTreeMap::new();
    let subject = nats.names.outcomes(wanted.source);
    find(
        nats,
        &nats.names.outcomes_stream(),
        subject,
        wanted,
        |stored| {
            let Ok(batch) = serde_json::from_slice::<Batch<Record>>(&stored.message.payload) else {
                return;
            };
            for mut record in batch
                .outcomes
                .into_iter()
                .filter(|record| record.id == wanted.id)
            {
                let user = record.user.and_then(|user| user.parse::<UserId>().ok());
                if wanted.user.is_some() && wanted.user != user.as_ref() {
                    continue;
                }
                let known = found.entry(user.clone()).or_default();
                known.user = user;
                for identity in ["source", "set"] {
                    record.step.more.remove(identity);
                }
                known.trail.push(record.step);
            }
        },
    )
    .await?;
    Ok(found.into_values().collect())
}

/// Returns the places of the reminder.
async fn places(nats: &Nats, wanted: &Wanted<'_>, known: &[Known]) -> Result<Vec<Place>, CliError> {
    let mut places = Vec::new();
    let names = &nats.names;
    let token = wanted.source.escaped();
    find(
        nats,
        &names.rejected_stream(),
        names.rejected(&token),
        wanted,
        |stored| {
            if wanted.is_in_json(&stored.message.payload) {
                let header = |name| stored.header(name).unwrap_or_default().to_owned();
                let (code, detail) = (header(headers::ERROR), header(headers::ERROR_DETAIL));
                places.push(Place::Rejected {
                    sequence: stored.sequence,
                    at: stored.at,
                    code,
                    detail,
                });
            }
        },
    )
    .await?;
    for (user, headers) in schedule::under(nats, wanted.source, wanted.id).await? {
        if wanted.user.is_none_or(|wanted| *wanted == user) {
            let due_at = schedule::due_at(Some(&headers));
            places.extend(due_at.map(|deliver_at| Place::Scheduled { user, deliver_at }));
        }
    }
    let may_wait = |known: &&Known| {
        let last = known.trail.last();
        last.is_some_and(|step| ["parked", "rerouted"].contains(&step.outcome.as_str()))
    };
    let waiting = known.iter().filter(may_wait);
    for user in waiting.filter_map(|known| known.user.clone()) {
        let waiting = mailbox::all(nats, &user).await?;
        let found = waiting
            .iter()
            .position(|message| wanted.is_in_event(&message.message));
        let unanswered = if found.is_some() {
            unanswered(nats, wanted, &user).await?
        } else {
            None
        };
        places.extend(found.map(|before| {
            let message = &waiting[before];
            Place::Mailbox {
                user,
                sequence: message.sequence,
                at: message.parked_at,
                before,
                unanswered,
            }
        }));
    }
    Ok(places)
}

/// Returns true if a member reports that an instance leaves it unanswered.
async fn unanswered(
    nats: &Nats,
    wanted: &Wanted<'_>,
    user: &UserId,
) -> Result<Option<Unanswered>, CliError> {
    let members = survey::members(nats).await?;
    let held_back = members
        .into_values()
        .flat_map(|member| member.card.held_back);
    let mut it = held_back
        .filter(|one| one.user == *user && one.source == *wanted.source && one.id == wanted.id);
    Ok(it.next().map(
        |HeldBack {
             instance, tries, ..
         }| Unanswered { instance, tries },
    ))
}

/// Explains why the reminder is unknown. Sets that are under way are not looked through.
async fn unknown(nats: &Nats, Wanted { source, id, .. }: &Wanted<'_>) -> Result<String, CliError> {
    let under_way = match count(nats, &nats.names.log_stream(), ">").await? {
        0 => String::new(),
        count => format!(
            ", or it is in one of the {} under way",
            plural(count, "set")
        ),
    };
    let id = plain(id);
    Ok(format!(
        "no outcome of reminder {id} of {source} is kept: it was not published, or too long ago{under_way}"
    ))
}

/// Passes the messages that may contain the reminder to `each`.
async fn find(
    nats: &Nats,
    stream: &str,
    filter_subject: String,
    wanted: &Wanted<'_>,
    mut each: impl FnMut(Stored<'_>),
) -> Result<(), CliError> {
    let config = pull::Config {
        filter_subject,
        ..pull::Config::default()
    };
    scan(nats, stream, config, |stored| {
        if wanted.may_be_in(&stored.message.payload) {
            each(stored);
        }
        Ok(())
    })
    .await
}

fn print(output: &mut Output, known: &[Known], places: &[Place]) -> Result<(), CliError> {
    for known in known {
        if let Some(user) = &known.user {
            output.line(format!("for {user}"))?;
        }
        let mut table = Table::new(&["at", "outcome", "detail"]);
        for step in &known.trail {
            table.row(&[time(step.at), step.outcome.clone(), detail(&step.more)]);
        }
        table
            .lines()
            .iter()
            .try_for_each(|line| output.line(line))?;
    }
    places
        .iter()
        .try_for_each(|place| output.line(plain(&place.description())))
}

/// Describes the other fields of an outcome: `instance app-1, to bob`.
fn detail(more: &Map<String, Value>) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list
            .iter()
            .map(|one| one.as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    let words = more
        .iter()
        .map(|(name, value)| format!("{name} {}", shown(value)));
    words.collect::<Vec<_>>().join(", ")
}

impl Place {
    fn description(&self) -> String {
        match self {
            Self::Mailbox {
                user,
                sequence,
                at,
                before,
                unanswered,
            } => {
                let before = plural(*before, "reminder");
                let unanswered = unanswered.as_ref().map(|Unanswered { instance, tries }| {
                    format!(
                        "; {instance} left it unanswered {tries} times, alone, so it is held back"
                    )
                });
                let (since, unanswered) = (time(*at), unanswered.unwrap_or_default());
                format!(
                    "in the mailbox of {user} since {since}, message {sequence}, with {before} before it{unanswered}"
                )
            }
            Self::Scheduled { user, deliver_at } => {
                format!("scheduled for {}, for {user}", time(*deliver_at))
            }
            Self::Rejected {
                sequence,
                at,
                code,
                detail,
            } => {
                format!(
                    "refused {} as {code}: {detail}; `bellhop rejected info {sequence}` shows it",
                    time(*at)
                )
            }
        }
    }
}
