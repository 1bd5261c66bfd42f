"""Tokens over REST, from a server whose answers the test decides."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from typing import Any
from unittest import IsolatedAsyncioTestCase

from signaling_client import Account, SignalError, login

Answer = tuple[int, Any]


def jwt(lives: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + lives}).encode())
    return f"x.{claims.decode().rstrip('=')}.{lives}"


class Accounts(IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, str | None, Any]] = []
        self.answers: list[Answer] = []
        case = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"] or 0))
                body = json.loads(text) if text else None
                case.asked.append((self.path, self.headers["Authorization"], body))
                status, answer = case.answers.pop(0)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "7")
                self.end_headers()
                self.wfile.write(
                    answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                )

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"ws://127.0.0.1:{server.server_port}/calls/"

    def gives(self, token: str) -> None:
        self.answers.append((200, {"access_token": token, "token_type": "bearer"}))

    async def test_a_login_sends_name_and_password_and_gives_the_token(self) -> None:
        self.gives("T")

        self.assertEqual(await login(self.url, "alice", "pässword"), "T")
        said = {"username": "alice", "password": "pässword"}
        self.assertEqual(self.asked, [("/calls/auth/login", None, said)])

    async def test_an_account_keeps_its_token_refreshes_it_and_falls_back_on_the_password(
        self,
    ) -> None:
        account = Account(self.url, "alice", "pw")
        first, second, third = jwt(100), jwt(200), jwt(5)
        self.gives(first)
        self.assertEqual([await account(False), await account(False)], [first, first])
        self.gives(second)
        self.assertEqual(await account(True), second)
        self.answers.append((401, {"detail": "Could not validate credentials"}))
        self.gives(third)
        self.assertEqual(await account(True), third)
        self.gives(first)
        self.assertEqual(await account(False), first, "five seconds are too few")

        paths = [(path.removeprefix("/calls/auth/"), bearer) for path, bearer, _ in self.asked]
        expected = [
            ("login", None),
            ("refresh", f"Bearer {first}"),
            ("refresh", f"Bearer {second}"),
        ]
        self.assertEqual(paths, [*expected, ("login", None), ("refresh", f"Bearer {third}")])

    async def test_a_refusal_says_whether_to_ask_again(self) -> None:
        for status, code, fatal, wait in [
            (401, "unauthorized", True, None),
            (429, "http_429", False, 7.0),
            (503, "http_503", False, None),
            (404, "http_404", True, None),
        ]:
            self.answers.append((status, {"detail": "No."}))
            error = await self.refused()
            self.assertEqual((error.code, error.fatal, error.retry_after), (code, fatal, wait))
            self.assertEqual(str(error), "No.")

    async def test_what_is_no_answer_is_as_good_as_none(self) -> None:
        nonsense: list[Any] = [b"<html>", [], {"token": "T"}]
        for answer in nonsense:
            self.answers.append((200, answer))
            error = await self.refused()
            self.assertEqual((error.code, error.fatal), ("unreachable", False))
        self.answers.append((502, b"<html>"))
        self.assertEqual(str(await self.refused()), "the server answered 502")
        self.url = "http://127.0.0.1:1"
        self.assertEqual((await self.refused()).code, "unreachable")
        for odd in ("example.com", "file:///etc/passwd"):
            with self.assertRaises(ValueError):
                await login(odd, "alice", "pw")

    async def test_an_account_shows_neither_password_nor_token(self) -> None:
        account = Account("https://example.com", "alice", "s3cret")

        self.assertEqual(repr(account), "Account('https://example.com', 'alice')")

    async def refused(self) -> SignalError:
        with self.assertRaises(SignalError) as raised:
            await login(self.url, "alice", "pw")
        return raised.exception
