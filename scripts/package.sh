#!/usr/bin/env bash
# Builds the release as static binaries and a Debian package of them, into target/package: scripts/package.sh [TARGET]. Another target
# than this machine's needs its C compiler and linker.
# PACKAGE_PROFILE=package-test builds them sooner and without optimisation, for tests/packages.
set -eu
cd "$(dirname "$0")/.."
. scripts/need.sh
need_build
need musl-gcc:musl-tools xz:xz-utils

target="${1:-$(uname -m)-unknown-linux-musl}"
out="${CARGO_TARGET_DIR:-$PWD/target}"
profile="${PACKAGE_PROFILE:-release}"
tools="${PACKAGE_TOOLS:-$out/tools}"
rustup target add "$target"
cargo build --locked --profile "$profile" --target "$target" --bins

# Compiled without optimisation, because optimising takes longer than packaging.
cargo_deb=3.8.0
if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $cargo_deb" ]; then
    cargo install --debug --locked --no-default-features --version "$cargo_deb" --root "$tools" --target-dir "$tools/build" cargo-deb
fi
compression="--compress-system"
[ "$profile" = release ] || compression="--fast"
rm -rf "$out/package"
mkdir -p "$out/package"
"$tools/bin/cargo-deb" --no-build --no-strip "$compression" --profile "$profile" --target "$target" --output "$out/package/"
cp "$out/$target/$profile/signaling-server" "$out/$target/$profile/manage_users" "$out/package/"
ls -l "$out/package"
