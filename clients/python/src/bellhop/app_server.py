"""The app server: routes, answers to heartbeats, and reminders for the application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from .connection import Connection, Servers
from .errors import ClosedError
from .names import check, escape
from .pending import ACCEPTED, TAKEN, Pending, Reason, Request, UnreadableError
from .queries import Queries
from .routes import Routed, Writer
from .table import Table
from .wire import DeliveredReminder

logger = logging.getLogger("bellhop")

LAST_ANSWERS = 1.0
"""How many seconds an app server that ends waits for requests that are still arriving."""


class Delivery:
    """A reminder that the application has to accept or refuse.

    One that is dropped without a decision is refused as busy and comes again, so a task that fails
    loses nothing. As a context manager it is accepted at the end, and refused as busy when the
    block raises:

    ```python
    async for delivery in app:
        with delivery as reminder:
            await show(reminder)
    ```

    A reminder without a decision after `answer_within` seconds is refused for now, and Bellhop
    delivers it again after a moment. The application, which still has it, does not get it a second
    time: its decision in the meantime answers the new delivery.
    """

    __slots__ = ("_pending", "_place", "_request", "reminder")

    def __init__(self, pending: Pending, request: Request, place: int) -> None:
        self._pending = pending
        self._request = request
        self._place = place
        self.reminder: DeliveredReminder = request.reminders[place]
        """The reminder, with all fields as they came, unknown ones included."""

    def accept(self) -> None:
        """Accepts the reminder: it is safe with the application, and Bellhop forgets it."""
        self._pending.accept(self._request, self._place)

    def later(self) -> None:
        """Refuses the reminder as busy: it comes again after a moment.

        The user's later reminders of the same request are refused with it, so that they stay in
        order.
        """
        self.refuse("busy")

    def refuse(self, reason: Reason = "not_connected") -> None:
        """Refuses the reminder, and with it the user's later reminders of the same request.

        Args:
            reason: With `not_connected` Bellhop drops the user's route. When the user has left,
                call `AppServer.disconnect` instead, which refuses all that waits. With `busy` it
                comes again.
        """
        self._pending.decide(self._request, self._place, reason)

    def __enter__(self) -> DeliveredReminder:
        return self.reminder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pending.decide(self._request, self._place, "busy" if kind else ACCEPTED)

    def __del__(self) -> None:
        if self._request.states[self._place] == TAKEN:
            self.later()


class Batch:
    """All reminders of one request, in order, to be stored or sent on together.

    A batch that is dropped without a decision is refused as busy and comes again. As a context
    manager it is accepted at the end, and refused as busy when the block raises.
    """

    __slots__ = ("_pending", "_places", "_request", "reminders")

    def __init__(self, pending: Pending, request: Request, places: Sequence[int]) -> None:
        self._pending = pending
        self._request = request
        self._places = places
        self.reminders: list[DeliveredReminder] = [*map(request.reminders.__getitem__, places)]
        """The reminders. There is one at least."""

    def accept(self) -> None:
        """Accepts all of them."""
        self._pending.accept_all(self._request, self._places)

    def later(self) -> None:
        """Refuses all of them as busy."""
        for place in self._places:
            self._pending.decide(self._request, place, "busy")

    def __enter__(self) -> list[DeliveredReminder]:
        return self.reminders

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (self.later if kind else self.accept)()

    def __del__(self) -> None:
        if self._request.undecided:
            self.later()


class AppServer:
    """An instance of an app server, and an async iterator of the reminders for its users.

    It keeps a table of connected users, and answers Bellhop's heartbeats from it. Routes follow the
    table. They are put again after each new connection to NATS, and after the bucket was deleted
    and created again. (Where an installation delivers to a user's latest device alone, this makes
    the devices of this instance the latest.)

    ```python
    async with bellhop.AppServer("app-1") as app:
        await app.connect("alice")
        async for delivery in app:
            print(delivery.reminder["content"])
            delivery.accept()
    ```

    Reminders of one source for one user arrive in the order of publishing. One that was accepted
    and comes again, since an answer was lost, is accepted and not handed over twice. When the
    application falls behind, what does not fit is refused as busy, and Bellhop keeps it. The
    iterator ends when the app server has drained.
    """

    def __init__(
        self,
        instance: str,
        nats: Connection | Servers = None,
        *,
        prefix: str = "bellhop",
        subject: str | None = None,
        capacity: int = 10_000,
        answer_within: float = 1.5,
        remember: int = 20_000,
        remember_for: float = 600.0,
        routes_in_flight: int = 256,
        patience: float = 5.0,
        check_routes_every: float = 10.0,
    ) -> None:
        """Prepares an instance; `start` starts it.

        Args:
            instance: The name of the instance. Two processes must not have the same name at the
                same time.
            nats: A connection, or the servers to connect to. See `Connection`.
            prefix: The prefix of the installation's names.
            subject: What the instance's subjects begin with, if not `<prefix>.app.<instance>`.
            capacity: The most reminders without a decision. More are refused as busy. A request
                counts as a whole until all of it is accepted.
            answer_within: How many seconds a request waits for the application's decisions. It must
                be below Bellhop's `delivery.timeout` of 2 s.
            remember: How many accepted reminders are remembered at least, to recognize repeats; at
                most twice as many and a request. What comes again after a fault was under way then,
                so it is among the last `capacity` ones. With 0 the application gets every repeat
                and decides about it, for example by its own database.
            remember_for: How many seconds they are remembered at least, if there are not more; at
                most twice as long.
            routes_in_flight: The most routes that are written at the same time.
            patience: How many seconds `Routed` and draining wait for JetStream.
            check_routes_every: The seconds between two checks whether the bucket of routes is still
                the same one.

        Raises:
            InvalidError: No instance can have this name.
        """
        self.instance = check("instance", instance)
        """The name of the instance."""
        self._owns = not isinstance(nats, Connection)
        self._connection = nats if isinstance(nats, Connection) else Connection(nats, name=instance)
        self._subject = subject or f"{prefix}.app.{escape(instance)}"
        self._routes_in_flight = max(routes_in_flight, 1)
        self._patience = patience
        self._check_routes_every = check_routes_every
        self._table = Table()
        self._writer = Writer(self._connection, self._table, f"{prefix}_routes", instance, subject)
        self._pending = Pending(capacity, remember, remember_for, answer_within, self._answer)
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: list[Subscription] = []
        self._answers: list[tuple[str, bytes]] = []
        self._has_answers = asyncio.Event()
        self._arrived: deque[tuple[Msg, float]] = deque()
        self._ready: set[asyncio.Future[None]] = set()
        self._changes: set[Routed] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None
        self._has_ended = False
        self.queries = Queries(self._connection, prefix=prefix)
        """Asks about the users. See `Queries`."""

    # ----------------------------------------------------------------------------------------------
    # -------- life
    async def start(self) -> None:
        """Connects to NATS and takes requests from here on. No user is connected yet.

        Raises:
            UnavailableError: NATS cannot be reached.
        """
        await self._connection.open()
        # A route promises that something answers, so the subscriptions come first.
        await self._connection.listen(self._subscribe)
        for work in (
            self._send_answers(),
            self._writer.run(self._routes_in_flight),
            self._writer.check(self._check_routes_every),
        ):
            self._tasks.append(asyncio.create_task(work))

    async def drain(self) -> None:
        """Stops. Returns when the iterator has ended.

        No user counts as connected any more, and the routes are deleted. The iterator still yields
        the reminders that it has, and ends when all are answered and all routes deleted. If
        JetStream does not answer, it ends after `patience`, and Bellhop drops the routes after its
        next heartbeats.
        """
        if not self._draining:
            self._draining = asyncio.create_task(self._drain())
        await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        self._table.disconnect_all()
        self._writer.wake()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while not (self._table.is_settled and self._pending.is_idle):
            if self._pending.is_idle and loop.time() >= deadline:
                logger.warning("stopped without deleting all routes: JetStream does not answer")
                break
            await asyncio.sleep(0.01)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._end_subscriptions(), LAST_ANSWERS)
        self._has_ended = True
        self._connection.forget(self._subscribe)
        for task in self._tasks:
            task.cancel()
        if self._alarm:
            self._alarm.cancel()
        for change in self._changes:
            change.stopped()
        self._wake()
        if self._owns:
            await self._connection.close()

    async def _end_subscriptions(self) -> None:
        """Answers the requests that are still arriving."""
        for subscription in self._subscriptions:
            await subscription.drain()  # type: ignore[no-untyped-call]
        self._take_in_all()
        if client := self._connection.client:
            await self._flush_answers()
            await client.flush()

    async def __aenter__(self) -> AppServer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._has_ended:
            self._pending.refuse_queue()
        await self.drain()

    # ----------------------------------------------------------------------------------------------
    # ------- users
    def connect(self, *users: str) -> Routed:
        """Registers a terminal of each user.

        A user counts as connected until as many terminals have left.

        It takes effect at once; await the result to know when JetStream has confirmed the routes.
        The route is put each time, which makes this the user's latest device.

        Raises:
            InvalidError: No user can have this name.
            ClosedError: The app server has stopped.
        """
        routed = self._change(users)
        for user in users:
            self._table.connect(user, routed)
        self._writer.wake()
        return routed

    def disconnect(self, *users: str) -> Routed:
        """Removes a terminal of each user.

        After the last one the user no longer counts as connected, and the user's reminders that
        wait for the application are refused. A user who is not connected is left alone.

        Raises:
            InvalidError: No user can have this name.
            ClosedError: The app server has stopped.
        """
        routed = self._change(users)
        gone = {user for user in users if self._table.disconnect(user, routed)}
        if gone:
            self._pending.disconnected(gone)
        self._writer.wake()
        return routed

    @asynccontextmanager
    async def connected(self, *users: str) -> AsyncIterator[None]:
        """Holds a terminal of each user for as long as the block lasts."""
        self.connect(*users)
        try:
            yield
        finally:
            with contextlib.suppress(ClosedError):
                self.disconnect(*users)

    def is_connected(self, user: str) -> bool:
        """Returns whether the user is connected here."""
        return user in self._table.connected

    def _change(self, users: Sequence[str]) -> Routed:
        if self._draining or not self._tasks:
            raise ClosedError("the app server is not running; start one")
        for user in users:
            check("user", user)
        routed = Routed(len(users), self._patience)
        self._changes.add(routed)
        routed.when_done(self._changes.discard)
        return routed

    # ----------------------------------------------------------------------------------------------
    # --- reminders
    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Yields the reminders for the users who are connected here, in order, one by one."""
        while not self._has_ended:
            for delivery in self._pending.taken(Delivery):
                yield delivery
            if not self._take_in_next():
                await self._wait()

    async def batches(self) -> AsyncIterator[Batch]:
        """Yields the reminders of each request together, so that they can be stored together."""
        pending = self._pending
        while not self._has_ended:
            if taken := pending.take_batch():
                yield Batch(pending, *taken)
            elif not self._take_in_next():
                await self._wait()

    async def _wait(self) -> None:
        """Sends the answers; if there are none, waits for a reminder, or for the end."""
        if self._answers:
            return await self._flush_answers()
        ready = asyncio.get_running_loop().create_future()
        self._ready.add(ready)
        try:
            await ready
        finally:
            self._ready.discard(ready)

    def _wake(self) -> None:
        for ready in self._ready:
            if not ready.done():
                ready.set_result(None)

    def _answer(self, inbox: str, body: bytes) -> None:
        if inbox:
            if not self._answers:
                asyncio.get_running_loop().call_soon(self._send_soon)
            self._answers.append((inbox, body))

    def _send_soon(self) -> None:
        # The application sends them itself when it asks for the next reminder at once.
        if self._answers:
            self._has_answers.set()

    # ----------------------------------------------------------------------------------------------
    # ---- requests
    async def _subscribe(self, client: Client) -> None:
        handlers: dict[str, Callable[[Msg], Awaitable[None]]] = {
            "deliver": self._on_delivery,
            "heartbeat": self._on_heartbeat,
        }
        self._subscriptions = [
            await client.subscribe(f"{self._subject}.{verb}", cb=handler)
            for verb, handler in handlers.items()
        ]
        await client.flush()
        # Bellhop may have dropped routes while the connection was lost.
        self._table.put_all_again()
        self._writer.wake()

    async def _on_delivery(self, msg: Msg) -> None:
        self._arrived.append((msg, time.monotonic()))
        if len(self._arrived) == 1:
            # An application that waits takes in what has arrived, one request after the other, so
            # that each is in the cache until it is answered. The rest is taken in after that.
            self._wake()
            asyncio.get_running_loop().call_soon(self._take_in_all)

    def _take_in_all(self) -> None:
        while self._take_in_next():
            pass

    def _take_in_next(self) -> bool:
        """Takes in the next request that has arrived. Returns whether there was one."""
        if not self._arrived:
            return False
        msg, came_at = self._arrived.popleft()
        try:
            if self._pending.request(msg.reply, msg.data, came_at, self._table.connected):
                self._wake()
                if not self._alarm:
                    self._set_alarm()
        except UnreadableError as error:
            self._cannot_read(msg, error)
        return True

    async def _on_heartbeat(self, msg: Msg) -> None:
        try:
            users = json.loads(msg.data)["users"]
            connected = [user for user in users if user in self._table.connected]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            return self._cannot_read(msg, error)
        await msg.respond(json.dumps({"connected": connected}).encode())
        return None

    def _cannot_read(self, msg: Msg, error: Exception) -> None:
        logger.error("cannot read what came on %s, so it gets no answer: %r", msg.subject, error)

    def _set_alarm(self) -> None:
        """Makes sure that the next deadline is noticed."""
        if (deadline := self._pending.next_deadline()) is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(max(deadline - time.monotonic(), 0), self._expire)

    def _expire(self) -> None:
        self._alarm = None
        self._pending.expire(time.monotonic())
        self._set_alarm()

    async def _send_answers(self) -> None:
        while True:
            await self._has_answers.wait()
            self._has_answers.clear()
            await self._flush_answers()

    async def _flush_answers(self) -> None:
        answers, self._answers = self._answers, []
        # Bellhop delivers again what it gets no answer for.
        if client := self._connection.client:
            with contextlib.suppress(Exception):
                for inbox, body in answers:
                    await client.publish(inbox, body)
