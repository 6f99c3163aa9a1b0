"""The connection to NATS, which is replaced when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlparse

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from .errors import ClosedError, UnavailableError

logger = logging.getLogger("bellhop")

ATTEMPT_SECONDS = 5.0
"""How long one attempt to connect may take, with TLS and authentication."""
PAUSES = (0.1, 2.0)
"""The first and the longest pause between attempts, in seconds."""

Listener = Callable[[Client], Awaitable[None]]
Servers = str | Sequence[str] | None


class Connection:
    """A connection to NATS that lasts.

    It makes a new nats-py client whenever the last one has ended, for whatever reason, and does not
    use the reconnection of nats-py: that ends for good at an error of the server that it does not
    know, such as "maximum connections exceeded", and later sends what it has reported as timed out.

    An `AppServer`, a `Publisher` and `Queries` each make their own connection, or share one:

    ```python
    async with bellhop.Connection("nats://127.0.0.1:4222") as nats:
        publisher = bellhop.Publisher("billing", nats)
    ```
    """

    def __init__(self, servers: Servers = None, **options: Any) -> None:
        """Prepares a connection; `open` opens it.

        Args:
            servers: One or more addresses, also in one text with commas between them. They may have
                a user and a password. Without it the environment variable `NATS_URL` counts, and
                then `nats://127.0.0.1:4222`.
            **options: Options of nats-py's `connect`, such as `user`, `password`, `nkeys_seed`,
                `user_credentials` and `tls`.
        """
        servers = servers or os.environ.get("NATS_URL") or "nats://127.0.0.1:4222"
        listed = [servers] if isinstance(servers, str) else servers
        self._servers = [one.strip() for text in listed for one in text.split(",") if one.strip()]
        self._options = {"ping_interval": 20, "max_outstanding_pings": 2, **options}
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._listeners: list[Listener] = []
        self._requests: set[asyncio.Task[Msg]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connects, and stays connected until `close`. Does nothing if it is open.

        Raises:
            UnavailableError: None of the servers accepts the connection.
            ClosedError: The connection was closed.
        """
        self._check_open()
        if self._keeper is None:
            self._use(await self._connect())
            self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Sends what is to be sent, and disconnects."""
        self._closed = True
        if self._keeper:
            self._keeper.cancel()
        if self._client:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.flush(), 1)
            await _end(self._client)
        self._lose()

    async def __aenter__(self) -> Connection:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def client(self) -> Client | None:
        """The client of nats-py that is connected now, if there is one."""
        return self._client if self._connected.is_set() else None

    @property
    def max_payload(self) -> int:
        """The most bytes of a message, headers included, that the server has announced."""
        return self._client.max_payload if self._client else 1 << 20

    async def listen(self, listener: Listener) -> None:
        """Calls the listener with the client now, and with each later client first."""
        self._check_open()
        self._listeners.append(listener)
        if client := self.client:
            await listener(client)

    def forget(self, listener: Listener) -> None:
        """Stops calling a listener."""
        self._listeners.remove(listener)

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> Msg:
        """Sends a request and returns its answer.

        If there is no connection, it waits for one within the same time.

        Args:
            subject: The subject.
            body: The body.
            timeout: The most seconds that it takes.
            headers: The headers.

        Raises:
            UnavailableError: There is no connection, no answer in time, or nothing that could
                answer.
            ClosedError: The connection was closed.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        if not self._connected.is_set():
            try:
                await asyncio.wait_for(self._connected.wait(), timeout)
            except asyncio.TimeoutError:
                raise UnavailableError(f"{subject}: no connection to NATS") from None
            self._check_open()
        client = self._client
        assert client is not None
        left = max(deadline - loop.time(), 0.01)
        sending = client.request(subject, body, left, headers=dict(headers) if headers else None)
        request = asyncio.create_task(sending)
        self._requests.add(request)
        try:
            await asyncio.wait({request})
        finally:
            self._requests.discard(request)
            request.cancel()
        if request.cancelled():
            raise UnavailableError(f"{subject}: the connection to NATS was lost")
        try:
            return request.result()
        except nats.errors.NoRespondersError:
            raise UnavailableError(f"{subject}: nothing is there to answer") from None
        except nats.errors.Error as error:
            raise UnavailableError(f"{subject}: {error or type(error).__name__}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the connection to NATS was closed; make another one")

    def _use(self, client: Client) -> None:
        self._client = client
        self._connected.set()
        if client.is_closed:
            self._lose()

    def _lose(self) -> None:
        self._connected.clear()
        self._lost.set()
        for request in self._requests:
            request.cancel()

    async def _keep(self) -> None:
        """Replaces the client whenever it has ended."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            pause, longest = PAUSES
            while True:
                try:
                    self._use(await self._connect())
                    break
                except UnavailableError as error:
                    logger.warning("%s; trying again in %.1f s", error, pause)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, longest)
            logger.info("connected to NATS again")

    async def _connect(self) -> Client:
        """Returns a client that is connected to one of the servers, and that all listeners know."""
        problem = "no server is named"
        for server in random.sample(self._servers, len(self._servers)):
            client = Client()
            try:
                await asyncio.wait_for(self._connect_to(client, server), ATTEMPT_SECONDS)
                return client
            except asyncio.CancelledError:
                await _end(client)
                raise
            except (
                Exception
            ) as error:  # nats-py raises errors of many kinds, of TLS and of sockets too.
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
                await _end(client)
        raise UnavailableError(f"cannot connect to NATS: {problem}")

    async def _connect_to(self, client: Client, server: str) -> None:
        async def closed() -> None:
            if client is self._client:
                self._lose()

        async def failed(error: Exception) -> None:
            logger.warning("NATS: %s", error or type(error).__name__)

        await client.connect(
            servers=[server],
            **{**self._options, "allow_reconnect": False, "closed_cb": closed, "error_cb": failed},
        )
        user, at, _ = urlparse(server).netloc.rpartition("@")
        for url in client.discovered_servers:
            found = f"{url.scheme}://{user}{at}{url.netloc}"
            if found not in self._servers:
                self._servers.append(found)
        for listener in self._listeners:
            await listener(client)
        await client.flush()
        if client.is_closed:
            raise UnavailableError("the connection was closed at once")


async def _end(client: Client) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 1)
