import niquests
from room import URL, reply

with niquests.Session() as session:
    response = session.get(URL)
    if response.extension is None:
        raise SystemExit(f"refused: {response.status_code}")
    while (text := response.extension.next_payload()) is not None:
        if answer := reply(text):
            response.extension.send_payload(answer)
    print("closed")
