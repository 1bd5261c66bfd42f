#!/usr/bin/env bash
# coturn 4.6.1 (Debian 12): a user name with the right password is answered 400 "Bad request", not 401, where the name contains both
# "union" and "select", in any case and in any order, also inside longer words. Each of the words alone is accepted.
#
# Why it matters: names of TURN users are made from account names (`<expiry>:<account>` in the REST scheme). An account such as
# `reunion-selection` has a login and no relay, and the code says that the request is malformed (RFC 8489 section 14.8).
#
# Seen: Allocate succeeds for "reunion-committee" and "selection-committee", and is answered 400 for "reunion-selection". All three are
# configured with `user=`, realm and password alike. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
server=""
trap 'if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
chmod 777 . # apt downloads as a user of its own
apt-get -qq download coturn=4.6.1-1 libevent-core-2.1-7 libevent-extra-2.1-7 libevent-openssl-2.1-7 libevent-pthreads-2.1-7 \
    libhiredis0.14 libmariadb3 libpq5
for package in ./*.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu"
cat >turnserver.conf <<'CONF'
listening-ip=127.0.0.1
relay-ip=127.0.0.1
listening-port=34780
min-port=34800
max-port=34899
realm=example.com
lt-cred-mech
user=reunion-committee:secret
user=selection-committee:secret
user=reunion-selection:secret
no-tls
no-dtls
no-cli
allow-loopback-peers
CONF
root/usr/bin/turnserver -c turnserver.conf --db "$folder/db" --pidfile "$folder/pid" --log-file stdout >log 2>&1 &
server=$!
python3 - <<'PYTHON'
import hashlib, hmac, os, socket, struct, time

SERVER = ("127.0.0.1", 34780)


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


def code_for(name):
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
            raise SystemExit("coturn does not answer")
        client.settimeout(10)
        realm, nonce = challenge[0x0014], challenge[0x0015]
        key = hashlib.md5(f"{name}:{realm.decode()}:secret".encode()).digest()
        proof = attribute(0x0006, name.encode()) + attribute(0x0014, realm) + attribute(0x0015, nonce)
        client.send(allocate(proof, key))
        error = attributes_of(client.recv(2048)).get(0x0009)
        return error and error[2] * 100 + error[3]


codes = {name: code_for(name) for name in ("reunion-committee", "selection-committee", "reunion-selection")}
print(codes)
assert codes == {"reunion-committee": None, "selection-committee": None, "reunion-selection": 400}, codes
PYTHON
echo "as described"
