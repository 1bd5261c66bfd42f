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


def lifetime_of(token: str) -> float | None:
    """How long a JWT is valid from its issue on, in seconds; None if it does not state both times.

    The clock of this machine is not used: it may be wrong.
    """
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return float(claims["exp"]) - float(claims["iat"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def renewal_delay(lifetime: float | None) -> float | None:
    """Seconds until a token is to be renewed that is valid for `lifetime`; None if it is not."""
    if lifetime is None or lifetime <= 0:
        return None
    return max(1.0, lifetime - min(RENEW_BEFORE, lifetime / 2))


def token_error(error: Exception, *, may_be_fatal: bool) -> SignalError:
    """Wraps what a `get_token` raised. A fatal SignalError stays as it is if `may_be_fatal`."""
    if isinstance(error, SignalError) and (may_be_fatal or not error.fatal):
        return error
    return SignalError("no_token", f"get_token: {str(error) or type(error).__name__}")
