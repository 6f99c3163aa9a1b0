"""The bodies of Bellhop's protocol.

Generated from docs/asyncapi.json by tools/generate.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

Priority = Literal["low", "normal", "high", "urgent"]
"""How urgent a reminder is."""


Reason = Literal["not_connected", "busy"]
"""Why a reminder is refused, as it stands on the wire."""


Field = Literal["title", "content"]
"""A text of a reminder."""


MarkAction = Literal["highlight", "link"]
"""How to show a mark."""


OutcomeName = Literal["delivered", "rerouted", "parked", "merged", "blocked", "cancelled", "expired", "rejected"]
"""What an outcome is called."""


class Mark(TypedDict):
    """A place in a reminder's text that a rule marked.

    Offsets are in Unicode scalar values of the text as delivered.
    """

    action: MarkAction
    """How to show it."""
    end: int
    """Where it ends."""
    field: Field
    """Which text."""
    href: NotRequired[str | None]
    """Where a link leads."""
    rule: str
    """The rule's name."""
    start: int
    """Where it begins."""
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
    """How many reminders of the set this one stands for, where duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    id: str
    """Unique within the source."""
    marks: NotRequired[list[Mark]]
    """What the rules marked, title first, in the order of their starts."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """When it began to wait in a mailbox, if it did."""
    priority: Priority
    """How urgent it is."""
    published_at: str
    """When JetStream stored the set."""
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
    """Whom it is for."""


class Repeat(TypedDict):
    """When a reminder repeats, as it is published."""

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
    """How urgent it is; else `normal`."""
    repeat: NotRequired[Repeat | None]
    """When it repeats.

    Each occurrence is a reminder of its own.
    """
    reroute: NotRequired[bool | None]
    """`false`: only the user may get it; else `true`."""
    tags: NotRequired[list[str] | None]
    """They select the rules; up to 16."""
    title: NotRequired[str | None]
    """A short headline, up to 1 KiB."""
    user: str
    """Whom it is for."""


class Refused(TypedDict):
    """One refused reminder of a delivery's answer."""

    id: str
    """The reminder's id."""
    reason: Reason
    """`not_connected` or `busy`."""
    source: str
    """Its source."""
    user: str
    """Whom it was for."""


class NamedReminder(TypedDict):
    """Which reminder it is, and nothing of what it says."""

    id: str
    """Its id."""
    published_at: str
    """When its set was published."""
    set: str
    """Its set."""
    source: str
    """Who published it."""
    user: str | None
    """Whom it is for; `null` if that was no name."""


class Step(TypedDict):
    """One outcome of a reminder.

    Which fields are there depends on `outcome`.
    """

    at: str
    """When."""
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
    """What became of it."""
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
    """When JetStream stored the set."""
    set: str
    """The name of the set it came in."""
    source: str
    """The business system that published it."""
    user: str
    """Whom it is for."""
    content: NotRequired[str]
    """The text."""
    count: NotRequired[int | None]
    """How many reminders of the set this one stands for, where duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    marks: NotRequired[list[Mark]]
    """What the rules marked, title first, in the order of their starts."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """When it began to wait in a mailbox, if it did."""
    priority: NotRequired[Priority]
    """How urgent it is."""
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
    """When JetStream stored the set."""
    set: str
    """The name of the set it came in."""
    source: str
    """The business system that published it."""
    user: str
    """Whom it is for."""
    content: NotRequired[str]
    """The text."""
    count: NotRequired[int | None]
    """How many reminders of the set this one stands for, where duplicates were merged."""
    data: NotRequired[Any]
    """The publisher's own JSON, byte for byte."""
    deliver_at: NotRequired[str | None]
    """Not delivered before this."""
    expires_at: NotRequired[str | None]
    """Never delivered after this."""
    marks: NotRequired[list[Mark]]
    """What the rules marked, title first, in the order of their starts."""
    merged: NotRequired[list[str | MergedReminder]]
    """The reminders merged into this one: their ids, and their data if it is other data."""
    parked_at: NotRequired[str | None]
    """When it began to wait in a mailbox, if it did."""
    priority: NotRequired[Priority]
    """How urgent it is."""
    rerouted_to: NotRequired[str | None]
    """The associate who got it, if this is a copy for the user it was meant for."""
    tags: NotRequired[list[str]]
    """They select the rules."""
    title: NotRequired[str | None]
    """A short headline."""
    at: str
    """When that was."""
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
    """A reminder's fate."""

    reminder: KnownReminder
    """The reminder."""
    trail: list[Step]
    """All its outcomes, the oldest first."""
    users: NotRequired[list[str] | None]
    """The users who have a reminder of this id, where they are several.

    The one of this answer is the first.
    """


class MailboxAnswer(TypedDict):
    """What waits in a mailbox."""

    oldest: NotRequired[str | None]
    """Since when the oldest of them does."""
    parked: int
    """How many wait."""
    reminders: list[DeliveredReminder]
    """The first of them, the oldest first."""


class Erased(TypedDict):
    """How many of each were removed."""

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
    """What was erased of a user."""

    erased: Erased
    """How many of each."""
