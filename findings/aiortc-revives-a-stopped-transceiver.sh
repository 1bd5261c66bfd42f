#!/usr/bin/env bash
# aiortc 1.16.0 (PyPI) and Chromium 156.0.8078.108 (Debian 12), driven by playwright 1.55.0 (PyPI): aiortc answers a media section that the
# offer has stopped (port 0, out of the BUNDLE group) as if it were alive: with a port, and in the group.
#
# Why it matters: after `transceiver.stop()` the browser refuses the answer (RFC 9143 section 7.3 forbids it, RFC 3264 section 6 wants
# port 0), and from then on setLocalDescription fails too, so the call runs on and cannot be changed any more. With a bot in Python,
# `transceiver.direction = "inactive"` is what works.
#
# Seen: the first round succeeds; in the second the offer says "m=audio 0", the answer names a port, and Chromium rejects it. With
# "inactive" both rounds succeed. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chromium --version
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aiortc==1.16.0 playwright==1.55.0
"$folder/venv/bin/python" - "$(command -v chromium)" <<'PYTHON'
import asyncio
import sys

from aiortc import RTCPeerConnection, RTCSessionDescription
from playwright.async_api import async_playwright

IN_PAGE = """async (step) => {
    if (step === 'start') {
        window.connection = new RTCPeerConnection();
        connection.addTransceiver('audio');
        connection.addTransceiver('video');
    }
    if (step === 'stop') connection.getTransceivers()[0].stop();
    if (step === 'quiet') connection.getTransceivers()[0].direction = 'inactive';
    try {
        await connection.setLocalDescription();
    } catch (error) {
        return { error: String(error) };
    }
    while (connection.iceGatheringState !== 'complete') await new Promise((done) => setTimeout(done, 50));
    return { offer: connection.localDescription.sdp };
}"""
ANSWER = "(sdp) => connection.setRemoteDescription({ type: 'answer', sdp }).then(() => 'accepted', (error) => String(error))"


def outline(sdp):
    lines = [line for line in sdp.split("\r\n") if line.startswith(("m=", "a=group:"))]
    return [" ".join(line.split()[:2]) if line.startswith("m=") else line for line in lines]


async def call(page, change):
    bot = RTCPeerConnection()
    verdicts = []
    for step in ("start", change):
        offer = (await page.evaluate(IN_PAGE, step))["offer"]
        await bot.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await bot.setLocalDescription(await bot.createAnswer())
        verdicts.append(await page.evaluate(ANSWER, bot.localDescription.sdp))
        print(step, "offer", outline(offer), "answer", outline(bot.localDescription.sdp), verdicts[-1])
    lines = [line for text in (offer, bot.localDescription.sdp) for line in outline(text)]
    later = await page.evaluate(IN_PAGE, "again")
    await bot.close()
    return verdicts, lines, later.get("error")


async def main():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=sys.argv[1], args=["--no-sandbox", "--allow-loopback-in-peer-connection"]
        )
        page = await browser.new_page()
        quiet = await call(page, "quiet")
        stopped = await call(page, "stop")
        await browser.close()
    assert quiet[0] == ["accepted", "accepted"] and quiet[2] is None, quiet
    (first, second), lines, later = stopped
    print("and then:", later)
    assert first == "accepted" and "BUNDLE group was added in the answer" in second, second
    assert lines[0] == "a=group:BUNDLE 1" and lines[3] == "a=group:BUNDLE 0 1", lines
    assert lines[1] == "m=audio 0" and lines[4].startswith("m=audio ") and lines[4] != "m=audio 0", lines
    assert later and "BUNDLE group was added in the answer" in later, later


asyncio.run(main())
PYTHON
echo "as described"
