"""Tokens for a name and a password, over the server's REST routes."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from typing import Any

from .events import SignalError
from .signal import expiry_of

ANSWER_WITHIN = 10.0
TOO_SHORT = 10.0
"""A token with less than this left, in seconds, is not worth showing."""


async def login(url: str, username: str, password: str) -> str:
    """A token for `username` from the server at `url`.

    Raises SignalError: `unauthorized` where the name or the password is wrong, `unreachable`, or
    `http_` and the status; fatal where asking again makes no difference.
    """
    return await _token(url, "login", body={"username": username, "password": password})


class Account:
    """A `get_token` for :func:`connect`: logs in, refreshes, and logs in again where it must."""

    def __init__(self, url: str, username: str, password: str) -> None:
        """Keeps the password in memory, for the day that a refresh is refused."""
        self._url, self._username, self._password = url, username, password
        self._current: str | None = None

    async def __call__(self, renew: bool = False) -> str:
        """The token at hand; with `renew`, or where it has nearly run out, a new one."""
        left = self._left()
        if self._current and left > TOO_SHORT and not renew:
            return self._current
        if self._current and left > 0:
            try:
                self._current = await _token(self._url, "refresh", bearer=self._current)
            except SignalError as error:
                if error.code != "unauthorized":
                    raise
            else:
                return self._current
        self._current = await login(self._url, self._username, self._password)
        return self._current

    def __repr__(self) -> str:
        """Whose it is; neither the password nor a token."""
        return f"Account({self._url!r}, {self._username!r})"

    def _left(self) -> float:
        expiry = expiry_of(self._current or "")
        return math.inf if expiry is None else expiry - time.time()


async def _token(url: str, route: str, body: Any = None, bearer: str | None = None) -> str:
    # ws:// is http:// and wss:// is https://.
    base = f"http{url[2:]}" if url.startswith("ws") else url
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not the address of a server, such as https://example.com")
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310  (http and https only)
        f"{base.removesuffix('/')}/auth/{route}", data, headers, method="POST"
    )
    return await asyncio.to_thread(_ask, request)


def _ask(request: urllib.request.Request) -> str:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])
    except urllib.error.HTTPError as refusal:
        with refusal:
            status = refusal.code
            code = "unauthorized" if status == 401 else f"http_{status}"
            fatal = status < 500 and status != 429
            raise SignalError(code, _detail(refusal), fatal, _wait(refusal.headers)) from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise SignalError("unreachable", f"no token from the server: {reason}") from None


def _detail(refusal: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(refusal)["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"the server answered {refusal.code}"


def _wait(headers: Message) -> float | None:
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None
