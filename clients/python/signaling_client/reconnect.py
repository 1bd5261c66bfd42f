"""Which closes are retried, and after which delay (docs/build/clients.md)."""

from __future__ import annotations

# In seconds.
FIRST_DELAY = 0.3
MAX_DELAY = 15.0

TOKEN_REASONS = {"Invalid token", "Token expired"}
"""Close reasons after which the client tries once with a new token."""
TOKEN_ERRORS = {"invalid_token", "token_expired", "logged_out", "password_changed"}
"""The same as `code` of the error before the close, for a network that hides the close."""
RETRIED_CODES = {1001, 1005, 1006, 1011, 1012, 1013, 1014}
"""Close codes that are retried, unless an error frame before the close decides."""


def retry_delay(attempt: int, jitter: float) -> float:
    """Seconds before attempt `attempt`: a share (`jitter`, 0 to 1) of a limit that doubles."""
    # Far beyond the limit, 2 ** attempt overflows a float.
    return jitter * min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 16))
