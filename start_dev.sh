#!/usr/bin/env bash
# Builds and runs the server for development, and again whenever a source file changes. Ctrl-C stops it.
set -eu
cd "$(dirname "$0")"
. scripts/need.sh
need_build
need curl:curl

export DEBUG=true REQUIRE_HTTPS=false ALLOW_ANONYMOUS=true
export HOST="${HOST:-127.0.0.1}" PORT="${PORT:-8080}" LOG_LEVEL="${LOG_LEVEL:-INFO}"

server=""
stop() {
    [ -z "$server" ] && return
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=""
}
trap 'exit 0' INT TERM
trap stop EXIT

sources() {
    find src examples Cargo.toml Cargo.lock -type f -printf '%p %T@ %s\n' | sort
}

announce() {
    if [ -n "$socket" ]; then
        echo "  For a proxy on this machine, on the Unix socket $socket. Ctrl-C ends it."
        return
    fi
    cat <<TEXT

  A video call with yourself: open this twice   http://localhost:$PORT/examples/secure_client.html
  Chat without a login                          http://localhost:$PORT/examples/simple_client.html
  Does TURN work?                               http://localhost:$PORT/examples/turn_credentials_example.html
  The API, to try out                           http://localhost:$PORT/docs

  Test accounts: admin / admin123, user1 / password123, user2 / password123
  (an older users.csv may have others: cargo run --bin manage_users -- list)
  The server is rebuilt when a file in src/ or examples/ changes. Ctrl-C ends it.

TEXT
}

# The address for health checks: a wildcard listen address cannot be connected to.
socket=""
case "$HOST" in
    unix:*) socket="${HOST#unix:}" address=localhost ;;
    0.0.0.0 | ::) address=127.0.0.1 ;;
    *:*) address="[$HOST]" ;;
    *) address=$HOST ;;
esac
answers() {
    curl -s -o /dev/null --noproxy '*' ${socket:+--unix-socket "$socket"} --max-time 2 "http://$address:$PORT/health"
}

# Waits until the server listens; fails if it exits first.
listens() {
    until answers; do
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.2
    done
}

if answers; then
    echo "${socket:-port $PORT} is taken: stop what listens there, or take another port: PORT=8081 ./start_dev.sh" >&2
    exit 1
fi

announced=""
while true; do
    seen=$(sources)
    if cargo build --locked --bin signaling-server; then
        stop
        "${CARGO_TARGET_DIR:-target}/debug/signaling-server" &
        server=$!
        if [ -z "$announced" ]; then
            listens || { wait "$server" && exit 0 || exit $?; }
            announce
            announced=yes
        fi
    else
        echo "not built: the next change of a file is tried again"
    fi
    while [ "$(sources)" = "$seen" ]; do
        # In the background, so that Ctrl-C takes effect at once.
        sleep 1 &
        wait $!
        if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then
            echo "the server has ended: it is started again when a file changes"
            server=""
        fi
    done
    echo "a source file changed: building"
done
