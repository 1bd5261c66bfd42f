#!/usr/bin/env bash
# Runs every test, after installing what they need: one build of everything, then the suites side by side.
# --fast leaves out the browsers and the packages; --lint adds clippy.
set -eu
cd "$(dirname "$0")"
. scripts/need.sh
. scripts/side_by_side.sh

fast="" lint=""
for argument in "$@"; do
    case "$argument" in
        --fast) fast=yes ;;
        --lint) lint=yes ;;
        *) echo "usage: ./test.sh [--fast] [--lint]" >&2; exit 2 ;;
    esac
done

tools="cc:gcc /usr/include/stdio.h:libc6-dev
    openssl:openssl node:nodejs npm:npm nginx:nginx-light turnserver:coturn /usr/bin/python3:python3 redis-server:redis-server ip:iproute2
    apache2:apache2-bin lighttpd:lighttpd /usr/lib/lighttpd/mod_openssl.so:lighttpd-mod-openssl stunnel:stunnel4
    haproxy:haproxy prometheus:prometheus caddy:caddy curl:curl jq:jq docker-compose:docker-compose skopeo:skopeo docker-registry:docker-registry
    /usr/lib/python3/dist-packages/yaml:python3-yaml
    /usr/lib/python3/dist-packages/websockets:python3-websockets /usr/lib/python3/dist-packages/aiortc:python3-aiortc
    /usr/lib/python3/dist-packages/jwt:python3-jwt"
[ -n "$fast" ] || tools="$tools chromium:chromium firefox-esr:firefox-esr /usr/share/fonts/truetype/dejavu:fonts-dejavu-core
    musl-gcc:musl-tools xz:xz-utils pip3:python3-pip mmdebstrap:mmdebstrap systemd-nspawn:systemd-container"
# shellcheck disable=SC2086  # several words on purpose
need $tools
need_build

built="${CARGO_TARGET_DIR:-$PWD/target}/debug"
export SIGNALING_SERVER="$built/signaling-server"

modules_of_client() { npm ci --prefix clients/js --prefer-offline --no-audit --no-fund; }
modules_of_browser() { npm ci --prefix tests/browser --prefer-offline --no-audit --no-fund; }
# All targets of all crates at once, so that each dependency is built once, with one set of features.
build() { cargo build --locked --workspace --all-targets; }

suite "npm packages of the client" modules_of_client
suite "npm packages of the browser tests" modules_of_browser
suite "build" build
end_of_suites

rust() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace
    else
        cargo test --locked --workspace --lib --bins --tests --no-fail-fast -- --test-threads 8
    fi
    cargo test --locked --workspace --doc
}
lint() { cargo clippy --locked --workspace --all-targets -- -D warnings; }
# Not for its figures, which a debug build makes meaningless: it ends with an error when a message is lost.
bench() {
    "$built/bench" --rounds 1 --starts 1 --seconds 0.2 --members 200
    "$built/bench" cluster --rounds 1 --starts 1 --seconds 0.2 --members 200
    "$built/bench" million --members 5000
}
client_js() { npm --prefix clients/js test; }
client_python() { /usr/bin/python3 -m unittest discover -s clients/python/tests -t clients/python; }
browser() { cd tests/browser && node --test "$1"; }
packages() {
    PACKAGE_PROFILE=package-test scripts/package.sh
    tests/packages/run
}

# The longest begin first.
suite "rust" rust
if [ -z "$fast" ]; then
    suite "packages" packages
    suite "packages of the clients" tests/packages/clients.sh
    suite "supply chain" scripts/supply_chain.sh
fi
slow="client firefox bots admin cluster token programs"
without_browser="cluster openapi turn proxies admin_modules compose issuer"
for name in $slow; do
    case " $without_browser " in *" $name "*) ;; *) [ -z "$fast" ] || continue ;; esac
    suite "browser: $name" browser "$name.test.mjs"
done
[ -z "$lint" ] || suite "lint" lint
for file in tests/browser/*.test.mjs; do
    name=$(basename "$file" .test.mjs)
    case " $slow " in *" $name "*) continue ;; esac
    case " $without_browser " in *" $name "*) ;; *) [ -z "$fast" ] || continue ;; esac
    suite "browser: $name" browser "$name.test.mjs"
done
suite "bench" bench
suite "client: JavaScript" client_js
suite "client: Python" client_python
end_of_suites
