"""Access tokens: when they expire and when they are renewed."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from .events import SignalError

GetToken: TypeAlias = Callable[[bool], str | Awaitable[str]]
"""Returns a token. The argument is True after a token was refused and shortly before one expires.
It is called on the event loop, so a plain function must not block. A fatal :class:`SignalError`
from it ends the session; after any other exception it is called again."""

RENEW_BEFORE = 60.0
"""Seconds before the expiry of a token at which it is renewed."""


def expiry_of(token: str) -> float | None:
    """The expiry time of a JWT, in seconds since the Unix epoch; None if it states none."""
    try:
        claims = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"]
        return float(expiry)
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def renewal_delay(token: str, now: float) -> float | None:
    """Seconds until a token that is valid at `now` is to be renewed; None for any other token."""
    left = (expiry_of(token) or now) - now
    return max(1.0, left - min(RENEW_BEFORE, left / 2)) if left > 0 else None


def token_error(error: Exception, *, may_be_fatal: bool) -> SignalError:
    """Wraps what a `get_token` raised. A fatal SignalError stays as it is if `may_be_fatal`."""
    if isinstance(error, SignalError) and (may_be_fatal or not error.fatal):
        return error
    return SignalError("no_token", f"get_token: {str(error) or type(error).__name__}")
