"""A Python client for [Bellhop](https://github.com/bellhop/bellhop), a reminder router on NATS.

- `Publisher` is for business systems: it publishes reminders, and returns when JetStream has stored
  them.
- `AppServer` is for programs that hold users' connections: it registers who is connected, and hands
  over their reminders.
- `Queries` asks about the history, one reminder's outcomes, and mailboxes, and erases users.

Reminders are dictionaries with the fields of Bellhop's protocol; `bellhop.wire` has their types.
"""

from . import wire
from .app_server import AppServer, Batch, Delivery
from .connection import Connection
from .errors import (
    BellhopError,
    ClosedError,
    ForbiddenError,
    InvalidError,
    Kind,
    LateError,
    NotFoundError,
    UnavailableError,
    UnconfirmedError,
)
from .publisher import Publisher, Publishing, Receipt
from .queries import Queries
from .routes import Routed
from .wire import DeliveredReminder

__all__ = [
    "AppServer",
    "Batch",
    "BellhopError",
    "ClosedError",
    "Connection",
    "DeliveredReminder",
    "Delivery",
    "ForbiddenError",
    "InvalidError",
    "Kind",
    "LateError",
    "NotFoundError",
    "Publisher",
    "Publishing",
    "Queries",
    "Receipt",
    "Routed",
    "UnavailableError",
    "UnconfirmedError",
    "wire",
]
