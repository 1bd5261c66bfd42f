#!/usr/bin/env bash
# Runs every test, after installing what they need. --fast leaves out the browser.
set -eu
cd "$(dirname "$0")"
. scripts/need.sh

fast=""
case "${1:-}" in
    "") ;;
    --fast) fast=yes ;;
    *) echo "usage: ./test.sh [--fast]" >&2; exit 2 ;;
esac

need_build
need openssl:openssl node:nodejs npm:npm nginx:nginx-light turnserver:coturn /usr/bin/python3:python3 redis-server:redis-server ip:iproute2 \
    haproxy:haproxy prometheus:prometheus curl:curl jq:jq docker-compose:docker-compose /usr/lib/python3/dist-packages/yaml:python3-yaml \
    /usr/lib/python3/dist-packages/websockets:python3-websockets /usr/lib/python3/dist-packages/aiortc:python3-aiortc
[ -n "$fast" ] || need chromium:chromium firefox-esr:firefox-esr /usr/share/fonts/truetype/dejavu:fonts-dejavu-core

cargo test --locked
cargo build --locked --workspace --bins
built="${CARGO_TARGET_DIR:-$PWD/target}/debug"
# Not for its figures, which a debug build makes meaningless: it ends with an error when a message is lost.
"$built/bench" --rounds 1 --starts 1 --seconds 0.2 --members 200
"$built/bench" cluster --rounds 1 --starts 1 --seconds 0.2 --members 200
(cd clients/js && npm ci --no-audit --no-fund && npm test)
export SIGNALING_SERVER="$built/signaling-server"
cargo test --locked -p signaling-client
cargo build --locked -p signaling-client --example echo_bot
/usr/bin/python3 -m unittest discover -s clients/python/tests -t clients/python
cd tests/browser
npm ci --no-audit --no-fund
if [ -n "$fast" ]; then npm run fast; else npm test; fi
