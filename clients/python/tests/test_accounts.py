"""Tokens over REST, from a scripted server."""

from __future__ import annotations

import http.server
import json
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest import IsolatedAsyncioTestCase, mock

from signaling_client import Account, SignalError, login

Response = tuple[int, Any]


class Accounts(IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.requests: list[tuple[str, str | None, Any]] = []
        self.responses: list[Response] = []
        case = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"] or 0))
                body = json.loads(text) if text else None
                case.requests.append((self.path, self.headers["Authorization"], body))
                status, content = case.responses.pop(0)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "7")
                self.end_headers()
                self.wfile.write(
                    content if isinstance(content, bytes) else json.dumps(content).encode()
                )

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"ws://127.0.0.1:{server.server_port}/calls/"

    def respond_with(self, token: str, expires_in: float = 1800) -> None:
        answer = {"access_token": token, "token_type": "bearer", "expires_in": expires_in}
        self.responses.append((200, answer))

    async def test_login_sends_username_and_password_and_returns_the_token(self) -> None:
        self.respond_with("T")

        self.assertEqual(await login(self.url, "alice", "pässword"), "T")
        body = {"username": "alice", "password": "pässword"}
        self.assertEqual(self.requests, [("/calls/auth/login", None, body)])

    async def test_account_reuses_its_token_then_refreshes_it_then_logs_in_again(
        self,
    ) -> None:
        account = Account(self.url, "alice", "pw")
        first, second, third = "T1", "T2", "T3"
        self.respond_with(first)
        self.assertEqual([await account(False), await account(False)], [first, first])
        self.respond_with(second)
        self.assertEqual(await account(True), second)
        self.responses.append((401, {"detail": "Could not validate credentials"}))
        self.respond_with(third, expires_in=5)
        self.assertEqual(await account(True), third)
        self.respond_with(first)
        self.assertEqual(await account(False), first, "a token with five seconds left is replaced")

        paths = [(path.removeprefix("/calls/auth/"), bearer) for path, bearer, _ in self.requests]
        expected = [
            ("login", None),
            ("refresh", f"Bearer {first}"),
            ("refresh", f"Bearer {second}"),
        ]
        self.assertEqual(paths, [*expected, ("login", None), ("refresh", f"Bearer {third}")])

    async def test_token_is_kept_as_long_as_the_server_said_whatever_the_clock(self) -> None:
        account = Account(self.url, "alice", "pw")
        for now in (0.0, 4e9):
            with mock.patch("time.time", lambda now=now: now):
                self.respond_with(f"T{now}", expires_in=100)
                token = await account(True)
                self.assertEqual(await account(False), token)
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 95)
        with mock.patch("signaling_client.accounts.time", later):
            self.respond_with("T3")
            self.assertEqual(await account(False), "T3", "five seconds are left")

        routes = [path.removeprefix("/calls/auth/") for path, _, _ in self.requests]
        self.assertEqual(routes, ["login", "refresh", "refresh"])

    async def test_error_of_a_refused_login_says_whether_a_retry_can_succeed(self) -> None:
        for status, code, fatal, wait in [
            (401, "unauthorized", True, None),
            (429, "http_429", False, 7.0),
            (503, "http_503", False, None),
            (404, "http_404", True, None),
        ]:
            self.responses.append((status, {"detail": "No."}))
            error = await self.refused_login()
            self.assertEqual((error.code, error.fatal, error.retry_after), (code, fatal, wait))
            self.assertEqual(str(error), "No.")

    async def test_malformed_response_counts_as_unreachable(self) -> None:
        malformed: list[Any] = [b"<html>", [], {"token": "T"}]
        for content in malformed:
            self.responses.append((200, content))
            error = await self.refused_login()
            self.assertEqual((error.code, error.fatal), ("unreachable", False))
        self.responses.append((502, b"<html>"))
        self.assertEqual(str(await self.refused_login()), "the server answered 502")
        self.url = "http://127.0.0.1:1"
        self.assertEqual((await self.refused_login()).code, "unreachable")
        for invalid in ("example.com", "file:///etc/passwd"):
            with self.assertRaises(ValueError):
                await login(invalid, "alice", "pw")

    async def test_repr_of_an_account_contains_neither_password_nor_token(self) -> None:
        account = Account("https://example.com", "alice", "s3cret")

        self.assertEqual(repr(account), "Account('https://example.com', 'alice')")

    async def refused_login(self) -> SignalError:
        with self.assertRaises(SignalError) as raised:
            await login(self.url, "alice", "pw")
        return raised.exception
