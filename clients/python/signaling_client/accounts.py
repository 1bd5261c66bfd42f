"""Access tokens for a username and a password, from the REST routes of the server."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from typing import Any, NamedTuple

from .events import SignalError
from .tokens import lifetime_of

# In seconds.
REQUEST_TIMEOUT = 10.0
MIN_LIFETIME = 10.0
"""A token with less than this left is replaced before it is used."""


async def login(url: str, username: str, password: str) -> str:
    """Returns a token for `username` from the server at `url`.

    Raises SignalError: `unauthorized` if the username or the password is wrong, `unreachable`, or
    `http_` followed by the status; fatal if a retry would give the same result.
    """
    return (await _log_in(url, username, password)).token


class IssuedToken(NamedTuple):
    """A token as the server has issued it."""

    token: str
    lifetime: float | None
    """Seconds that it is valid from its receipt on, if the server has told them."""


class Account:
    """A `get_token` for :func:`connect`: logs in, refreshes, and logs in again if that fails."""

    def __init__(self, url: str, username: str, password: str) -> None:
        """Keeps the password in memory, for the case that a refresh is refused."""
        self._url, self._username, self._password = url, username, password
        self._current: str | None = None
        # By the monotonic clock: the clocks of this machine and of the server may differ.
        self._expires_at = math.inf

    async def __call__(self, renew: bool = False) -> str:
        """Returns the current token; with `renew`, or if it is about to expire, a new one."""
        left = self._expires_at - time.monotonic()
        if self._current and left > MIN_LIFETIME and not renew:
            return self._current
        if self._current and left > 0:
            try:
                issued = await _request_token(self._url, "refresh", bearer=self._current)
            except SignalError as error:
                if error.code != "unauthorized":
                    raise
            else:
                return self._store(issued)
        return self._store(await _log_in(self._url, self._username, self._password))

    def __repr__(self) -> str:
        """Shows the account; neither the password nor a token."""
        return f"Account({self._url!r}, {self._username!r})"

    def _store(self, issued: IssuedToken) -> str:
        lifetime = math.inf if issued.lifetime is None else issued.lifetime
        self._current, self._expires_at = issued.token, time.monotonic() + lifetime
        return issued.token


async def _log_in(url: str, username: str, password: str) -> IssuedToken:
    return await _request_token(url, "login", body={"username": username, "password": password})


async def _request_token(
    url: str, route: str, body: Any = None, bearer: str | None = None
) -> IssuedToken:
    # ws:// becomes http:// and wss:// becomes https://.
    base = f"http{url[2:]}" if url.startswith("ws") else url
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not the URL of a server, such as https://example.com")
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310  (http and https only)
        f"{base.removesuffix('/')}/auth/{route}", data, headers, method="POST"
    )
    return await asyncio.to_thread(_post, request)


def _post(request: urllib.request.Request) -> IssuedToken:
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as response:  # noqa: S310
            answer = json.load(response)
            token, lifetime = str(answer["access_token"]), answer.get("expires_in")
            return IssuedToken(token, lifetime_of(token) if lifetime is None else float(lifetime))
    except urllib.error.HTTPError as refused:
        with refused:
            status = refused.code
            code = "unauthorized" if status == 401 else f"http_{status}"
            fatal = status < 500 and status != 429
            delay = _retry_after(refused.headers)
            raise SignalError(code, _detail(refused), fatal, delay) from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise SignalError("unreachable", f"cannot get a token from the server: {reason}") from None


def _detail(refused: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(refused)["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"the server answered {refused.code}"


def _retry_after(headers: Message) -> float | None:
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None
