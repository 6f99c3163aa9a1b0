"""The bodies of Bellhop's protocol.

Generated from docs/asyncapi.json by tools/generate.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

Priority = Literal["low", "normal", "high", "urgent"]
"""The urgency of a reminder."""


Reason = Literal["not_connected", "busy"]
"""The reason of a refusal, as on the wire."""


Field = Literal["title", "content"]
"""A text of a reminder."""


MarkAction = Literal["highlight", "link"]
"""The way to show a mark."""


OutcomeName = Literal["delivered", "rerouted", "parked", "merged", "blocked", "cancelled", "expired", "rejected"]
"""What an outcome is called."""


class Mark(TypedDict):
    """A place in a reminder's text that a rule marked.

    Offsets are in Unicode scalar values of the text as delivered.
    """

    action: MarkAction
    """The way to show it."""
    end: int
    """End of the mark."""
    field: Field
    """The marked text."""
    href: NotRequired[str | None]
    """The address of a link."""
    rule: str
    """The rule's name."""
    start: int
    """Start of the mark."""
    tag: str
    """The tag whose rule it is."""


class MergedReminder(TypedDict):
    """A merged reminder with data of its own."""

    data: Any
    """Its data, byte for byte."""
    id: str
    """Its id."""


_DeliveredReminder = TypedDict(
    "_DeliveredReminder",
    {"for": "str | None"},
    total=False,
)


class DeliveredReminder(_DeliveredReminder):
    """A reminder as an app server gets it."""

    content: str
    """The text."""
    count: NotRequired[int | None]
    """Number of reminders of the set that this one stands for, if duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    id: str
    """Unique within the source."""
    marks: NotRequired[list[Mark]]
    """Marks of the rules, those of the title first, sorted by start."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """Time at which it began to wait in a mailbox, if it did."""
    priority: Priority
    """Its urgency."""
    published_at: str
    """Time at which JetStream stored the set."""
    rerouted_to: NotRequired[str | None]
    """The associate who got it, if this is a copy for the user it was meant for."""
    set: str
    """The name of the set it came in."""
    source: str
    """The business system that published it."""
    tags: list[str]
    """They select the rules."""
    title: NotRequired[str | None]
    """A short headline."""
    user: str
    """The user for whom it is published."""


class Repeat(TypedDict):
    """The recurrence of a reminder, as published."""

    cron: str
    """A cron pattern of five fields: minute, hour, day of the month, month, day of the week.

    `0 8 * * MON-FRI` is 08:00 from Monday to Friday.
    """
    zone: NotRequired[str | None]
    """The time zone of the pattern by its name in the IANA database, such as `Asia/Shanghai`;
    else `UTC`."""


class PublishedReminder(TypedDict):
    """A reminder as it is published."""

    content: str
    """The text, 1 byte to 64 KiB."""
    data: NotRequired[Any]
    """Any JSON that common readers can hold, delivered byte for byte: at most 64 levels,
    numbers of up to 300 characters that fit into a double, whole characters."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Not delivered after this."""
    id: NotRequired[str | None]
    """Unique within the source, 1 to 256 bytes without control characters; else `<set
    id>#<index>`."""
    merge: NotRequired[bool | None]
    """`false`: it is not merged with its duplicates; else `true`."""
    priority: NotRequired[Priority | None]
    """Its urgency; default: `normal`."""
    repeat: NotRequired[Repeat | None]
    """The pattern of its recurrence.

    Each occurrence is a reminder of its own.
    """
    reroute: NotRequired[bool | None]
    """`false`: only the user may get it; else `true`."""
    tags: NotRequired[list[str] | None]
    """They select the rules; up to 16."""
    title: NotRequired[str | None]
    """A short headline, up to 1 KiB."""
    user: str
    """The user for whom it is published."""


class Refused(TypedDict):
    """One refused reminder of a delivery's answer."""

    id: str
    """The reminder's id."""
    reason: Reason
    """`not_connected` or `busy`."""
    source: str
    """Its source."""
    user: str
    """The reminder's user."""


class NamedReminder(TypedDict):
    """The identity of a reminder, without its text."""

    id: str
    """Its id."""
    published_at: str
    """Time at which its set was published."""
    set: str
    """Its set."""
    source: str
    """The reminder's source."""
    user: str | None
    """The reminder's user; `null` if that was not a name."""


class Step(TypedDict):
    """One outcome of a reminder.

    Which fields are there depends on `outcome`.
    """

    at: str
    """Time of the outcome."""
    error: NotRequired[Literal["unreadable_message", "not_json", "invalid_cloud_event", "invalid_set", "invalid_source", "invalid_set_id", "no_reminders", "too_many_reminders", "too_many_refused", "invalid_cancel", "invalid_reminder", "invalid_id", "invalid_user", "invalid_title", "invalid_content", "invalid_tag", "too_many_tags", "invalid_priority", "invalid_expires_at", "invalid_deliver_at", "invalid_repeat", "invalid_data", "duplicate_id", "reminder_too_large", "too_many_matches", "rules_unusable", "scheduled_full", "mailbox_full", "corrupt_event"] | None]
    """`rejected`: why."""
    escalated: NotRequired[bool | None]
    """`parked`: it has waited for long."""
    expires_at: NotRequired[str | None]
    """`expired`: the time after which it was not to be delivered."""
    instance: NotRequired[str | None]
    """`delivered`, `rerouted`: the instance that accepted it first."""
    instances: NotRequired[list[str] | None]
    """`delivered`: all instances that accepted it, where they are several."""
    into: NotRequired[str | None]
    """`merged`: the reminder that stands for it."""
    outcome: OutcomeName
    """The outcome."""
    rule: NotRequired[str | None]
    """`blocked`: the rule's name."""
    tag: NotRequired[str | None]
    """`blocked`: the tag whose rule it is."""
    to: NotRequired[str | None]
    """`rerouted`: the associate who got it; `null` if that user was erased."""


_KnownReminder = TypedDict(
    "_KnownReminder",
    {"for": "str | None"},
    total=False,
)


class KnownReminder(_KnownReminder):
    """A reminder as far as it is known."""

    id: str
    """Unique within the source."""
    published_at: str
    """Time at which JetStream stored the set."""
    set: str
    """The name of the set it came in."""
    source: str
    """The business system that published it."""
    user: str
    """The user for whom it is published."""
    content: NotRequired[str]
    """The text."""
    count: NotRequired[int | None]
    """Number of reminders of the set that this one stands for, if duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    marks: NotRequired[list[Mark]]
    """Marks of the rules, those of the title first, sorted by start."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """Time at which it began to wait in a mailbox, if it did."""
    priority: NotRequired[Priority]
    """Its urgency."""
    rerouted_to: NotRequired[str | None]
    """The associate who got it, if this is a copy for the user it was meant for."""
    tags: NotRequired[list[str]]
    """They select the rules."""
    title: NotRequired[str | None]
    """A short headline."""


_HistoryReminder = TypedDict(
    "_HistoryReminder",
    {"for": "str | None"},
    total=False,
)


class HistoryReminder(_HistoryReminder):
    """A reminder of the history, and what became of it."""

    id: str
    """Unique within the source."""
    published_at: str
    """Time at which JetStream stored the set."""
    set: str
    """The name of the set it came in."""
    source: str
    """The business system that published it."""
    user: str
    """The user for whom it is published."""
    content: NotRequired[str]
    """The text."""
    count: NotRequired[int | None]
    """Number of reminders of the set that this one stands for, if duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    marks: NotRequired[list[Mark]]
    """Marks of the rules, those of the title first, sorted by start."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """Time at which it began to wait in a mailbox, if it did."""
    priority: NotRequired[Priority]
    """Its urgency."""
    rerouted_to: NotRequired[str | None]
    """The associate who got it, if this is a copy for the user it was meant for."""
    tags: NotRequired[list[str]]
    """They select the rules."""
    title: NotRequired[str | None]
    """A short headline."""
    at: str
    """Time of the latest outcome."""
    outcome: OutcomeName
    """Its latest outcome."""
    trail: list[Step]
    """All its outcomes, the oldest first."""


class HistoryAnswer(TypedDict):
    """Reminders of the history, the one that was published last first."""

    cursor: NotRequired[str | None]
    """There are more: ask the same with it."""
    reminders: list[HistoryReminder]
    """The reminders."""


class WhyAnswer(TypedDict):
    """The outcomes of a reminder."""

    reminder: KnownReminder
    """The reminder."""
    trail: list[Step]
    """All its outcomes, the oldest first."""
    users: NotRequired[list[str] | None]
    """The users who have a reminder of this id, where they are several.

    The one of this answer is the first.
    """


class MailboxAnswer(TypedDict):
    """The waiting reminders of a mailbox."""

    oldest: NotRequired[str | None]
    """Since when the oldest of them does."""
    parked: int
    """Number of waiting reminders."""
    reminders: list[DeliveredReminder]
    """The first of them, the oldest first."""


class Erased(TypedDict):
    """Numbers of removed entries, by kind."""

    associates: int
    """The user's list of associates, and others' lists that named the user."""
    history: int
    """Reminders of the history."""
    parked: int
    """Reminders of the mailbox."""
    routes: int
    """Routes."""
    scheduled: NotRequired[int]
    """Reminders that were to be delivered later; absent if there were none."""


class EraseAnswer(TypedDict):
    """The result of erasing a user."""

    erased: Erased
    """Numbers of removed entries."""
