#!/usr/bin/env bash
# Builds the release and runs it for production on 127.0.0.1:8080, behind nginx (deploy/nginx.conf).
# If anything is missing, it prints one line for each fault and does not start.
set -eu
cd "$(dirname "$0")"
. scripts/need.sh
need_build

export DEBUG=false HOST=127.0.0.1 PORT=8080
cargo build --release --locked
server="${CARGO_TARGET_DIR:-target}/release/signaling-server"
"$server" --check-config
exec "$server"
