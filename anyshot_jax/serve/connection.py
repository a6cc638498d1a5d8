"""Connections that have to ask soon: one that never ends its header is closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0  # that a header may take, from its first byte or from the connection on


class Connection(H11Protocol):
    """uvicorn's, with a time limit for headers; bodies have theirs in `guard.Guard`.

    uvicorn itself answers so many connections at once and refuses the others, so that a few that
    send nothing, or a byte now and then, would keep everybody out.
    """

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._closing is None:
            self._closing = self.loop.call_later(SECONDS, self.transport.close)

    def _go_on(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
