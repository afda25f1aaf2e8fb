"""How large a request may be, and how long it may take to arrive, whoever sends it."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HANG_UP = {"Connection": "close"}  # or the rest of the body would still be read


class _Refused(Exception):
    """The request is not read any further."""


class Limits:
    """Answers 413 to a body of more than `most` bytes, without reading it, and 408 to one that has
    not arrived after `seconds`; then hangs up.

    Whatever the application makes of a body that breaks off is not sent: libraries make different
    errors of it.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app = app
        self.most = most
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        large = JSONResponse(
            {"detail": f"The request is larger than the {self.most:,} bytes that are taken."},
            413,
            HANG_UP,
        )
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self.most:
            await large(scope, receive, send)
            return
        ends = asyncio.get_running_loop().time() + self.seconds
        seen, arrived = 0, False
        refusal: JSONResponse | None = None

        async def limited() -> Message:
            nonlocal seen, arrived, refusal
            if arrived:  # what comes now is that the client went away
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                why = f"The request did not arrive in {self.seconds:g} seconds."
                refusal = JSONResponse({"detail": why}, 408, HANG_UP)
                raise _Refused from None
            seen += len(message.get("body", b""))
            arrived = not message.get("more_body", False)
            if seen > self.most:
                refusal = large
                raise _Refused
            return message

        async def unless_refused(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self.app(scope, limited, unless_refused)
        except Exception:
            if refusal is None:
                raise
        if refusal is not None:
            await refusal(scope, receive, send)
