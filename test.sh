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
need openssl:openssl node:nodejs npm:npm nginx:nginx-light turnserver:coturn /usr/bin/python3:python3 \
    /usr/lib/python3/dist-packages/websockets:python3-websockets
[ -n "$fast" ] || need chromium:chromium /usr/share/fonts/truetype/dejavu:fonts-dejavu-core

cargo test --locked
cargo build --locked --bins
export SIGNALING_SERVER="${CARGO_TARGET_DIR:-$PWD/target}/debug/signaling-server"
cd tests/browser
npm ci --no-audit --no-fund
if [ -n "$fast" ]; then npm run fast; else npm test; fi
