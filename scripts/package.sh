#!/usr/bin/env bash
# Builds the release as static binaries and a Debian package of them, into target/package.
# PACKAGE_PROFILE=package-test builds them sooner and without optimisation, for tests/packages.
set -eu
cd "$(dirname "$0")/.."
. scripts/need.sh
need_build
need musl-gcc:musl-tools xz:xz-utils

target="$(uname -m)-unknown-linux-musl"
out="${CARGO_TARGET_DIR:-$PWD/target}"
profile="${PACKAGE_PROFILE:-release}"
rustup target add "$target"
cargo build --locked --profile "$profile" --target "$target" --bins

# Compiled without optimisation, because optimising takes longer than packaging.
cargo_deb=3.8.0
if [ "$("$out/tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $cargo_deb" ]; then
    cargo install --debug --locked --no-default-features --version "$cargo_deb" --root "$out/tools" --target-dir "$out/tools/build" cargo-deb
fi
compression="--compress-system"
[ "$profile" = release ] || compression="--fast"
rm -rf "$out/package"
mkdir -p "$out/package"
"$out/tools/bin/cargo-deb" --no-build --no-strip "$compression" --profile "$profile" --target "$target" --output "$out/package/"
cp "$out/$target/$profile/signaling-server" "$out/$target/$profile/manage_users" "$out/package/"
ls -l "$out/package"
