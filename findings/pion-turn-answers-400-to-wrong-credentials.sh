#!/usr/bin/env bash
# pion/turn 2.1.0 (Debian 12), a TURN server in Go: a request with an unknown user, with a wrong password, or with credentials that have
# expired is answered 400 (Bad Request) without a reason, and without nonce and realm. RFC 8489 section 9.2.4 asks for 401 with both.
#
# Why it matters: 400 says that the request is malformed, and that there is no use in asking again. A client whose credentials have
# expired gets new ones after a 401, and gives up after this. Its own `NewLongTermAuthHandler` accepts user names that are a bare
# expiry only, so that credentials of the common form `<expiry>:<user>`, made with the right secret, are such a case.
#
# Seen: its example for a shared secret, as shipped, gives an address to `<expiry>`, and answers 400 to `<expiry>:alice` with the right
# secret, to an expiry that has passed, and to a wrong password. Exits with 1 if that changes. Needs the Go compiler.
set -eu
folder=$(mktemp -d)
server=""
trap 'if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
chmod 777 . # apt downloads as a user of its own
apt-get -qq download golang-github-pion-turn.v2-dev=2.1.0-1 golang-github-pion-stun-dev golang-github-pion-transport-dev \
    golang-github-pion-logging-dev golang-github-pion-randutil-dev golang-golang-x-net-dev golang-golang-x-sys-dev golang-golang-x-crypto-dev
for package in ./*.deb; do dpkg -x "$package" root; done
export GO111MODULE=off GOPATH="$folder/root/usr/share/gocode" GOCACHE="$folder/cache"
go build -o turn "$GOPATH/src/github.com/pion/turn/v2/examples/turn-server/lt-cred/main.go"
port=$(python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
./turn -public-ip 127.0.0.1 -port "$port" -authSecret secret >log 2>&1 &
server=$!
PORT="$port" python3 - <<'PYTHON'
import base64, hashlib, hmac, os, socket, struct, time

SERVER = ("127.0.0.1", int(os.environ["PORT"]))


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def allocate(attributes=b"", key=None):
    transaction = os.urandom(12)
    body = attribute(0x0019, bytes([17, 0, 0, 0])) + attributes
    if key:
        header = struct.pack("!HHI", 0x0003, len(body) + 24, 0x2112A442) + transaction
        body += attribute(0x0008, hmac.new(key, header + body, hashlib.sha1).digest())
    return struct.pack("!HHI", 0x0003, len(body), 0x2112A442) + transaction + body


def attributes_of(message):
    found, rest = {}, message[20:]
    while rest:
        kind, length = struct.unpack("!HH", rest[:4])
        found[kind] = rest[4 : 4 + length]
        rest = rest[4 + length + (-length % 4) :]
    return found


def password(name):
    return base64.b64encode(hmac.new(b"secret", name.encode(), hashlib.sha1).digest()).decode()


def answer(name, password):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(SERVER)
        client.settimeout(1)
        for _ in range(30):
            try:
                client.send(allocate())
                challenge = attributes_of(client.recv(2048))
                break
            except OSError:  # it is still starting
                time.sleep(0.2)
        else:
            raise SystemExit("pion/turn does not answer")
        client.settimeout(10)
        realm, nonce = challenge[0x0014], challenge[0x0015]
        key = hashlib.md5(f"{name}:{realm.decode()}:{password}".encode()).digest()
        proof = attribute(0x0006, name.encode()) + attribute(0x0014, realm) + attribute(0x0015, nonce)
        client.send(allocate(proof, key))
        found = attributes_of(client.recv(2048))
        error = found.get(0x0009)
        return (error[2] * 100 + error[3], error[4:].decode(), 0x0015 in found) if error else "an address"


soon, past = str(int(time.time()) + 3600), str(int(time.time()) - 60)
answers = {
    "<expiry>": answer(soon, password(soon)),
    "<expiry>:alice": answer(f"{soon}:alice", password(f"{soon}:alice")),
    "an expiry that has passed": answer(past, password(past)),
    "a wrong password": answer(soon, "wrong"),
}
for name, said in answers.items():
    print(f"{name}: {said}")
bare = (400, "", False)
assert list(answers.values()) == ["an address", bare, bare, bare]
PYTHON
echo "as described"
