#!/usr/bin/env bash
# Makes all files of a release of the commit that is checked out, into target/release-files: the Debian package, the static binaries,
# the packages of the clients, bills of materials (CycloneDX) and checksums. Nothing is uploaded.
# --twice makes them a second time in another folder, and fails if a byte differs.
# PACKAGE_PROFILE=package-test compiles sooner and without optimisation: for trying this script, and for nothing else.
set -eu
cd "$(dirname "$0")/.."
. scripts/need.sh
need_build
need git:git node:nodejs npm:npm pip3:python3-pip jq:jq

case "${1:-}" in
    "" | --twice) ;;
    *) echo "usage: scripts/release.sh [--twice]" >&2; exit 2 ;;
esac
[ -z "$(git status --porcelain)" ] || echo "what is not committed is not released" >&2

target="${CARGO_TARGET_DIR:-$PWD/target}"
export PACKAGE_TOOLS="$target/tools"
cyclonedx=0.5.9
if ! grep --quiet "\"cargo-cyclonedx $cyclonedx " "$PACKAGE_TOOLS/.crates.toml" 2> /dev/null; then
    cargo install --debug --locked --version "$cyclonedx" --root "$PACKAGE_TOOLS" --target-dir "$PACKAGE_TOOLS/build" cargo-cyclonedx
fi
python="$PACKAGE_TOOLS/python-release"
[ -e "$python/build" ] || pip3 install --quiet --root-user-action=ignore --target "$python" build==1.3.0 hatchling==1.27.0

# make OUT  builds in a fresh clone, so that nothing of this folder gets in.
make() (
    out="$1"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    git clone --quiet --no-hardlinks . "$work/source"
    cd "$work/source"
    version=$(scripts/version.sh)
    # What writes a time writes that of the commit; and no path of this machine is in what is compiled.
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    cargo_home="${CARGO_HOME:-$HOME/.cargo}"
    RUSTFLAGS="--remap-path-prefix=$work=/build --remap-path-prefix=$cargo_home=/cargo"
    CFLAGS="-ffile-prefix-map=$work=/build -ffile-prefix-map=$cargo_home=/cargo"
    export SOURCE_DATE_EPOCH RUSTFLAGS CFLAGS CARGO_TARGET_DIR="$work/target"
    mkdir "$work/out"

    scripts/package.sh > /dev/null
    cp "$CARGO_TARGET_DIR"/package/*.deb "$work/out"
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go-w \
        --transform "s,^,signaling-server-$version/," --directory "$CARGO_TARGET_DIR/package" signaling-server manage_users \
        --directory "$work/source" LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md env.example |
        gzip --no-name > "$work/out/signaling-server-$version-$(uname -m)-linux.tar.gz"

    npm pack --silent --pack-destination "$work/out" ./clients/js > /dev/null
    PYTHONPATH="$python" python3 -m build --no-isolation --outdir "$work/out" clients/python > /dev/null
    cargo package --locked --package signaling-client --no-verify --quiet
    cp "$CARGO_TARGET_DIR/package/signaling-client-$version.crate" "$work/out"

    # The folder of the source is in what identifies our own packages.
    PATH="$PACKAGE_TOOLS/bin:$PATH" cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$(uname -m)-unknown-linux-musl" --override-filename bom
    sed "s,$work/source,/source,g" bom.json > "$work/out/signaling-server-$version.cdx.json"
    sed "s,$work/source,/source,g" clients/rust/bom.json > "$work/out/signaling-client-rust-$version.cdx.json"
    npm sbom --prefix clients/js --package-lock-only --omit dev --sbom-format cyclonedx --sbom-type library |
        jq --arg time "$(date --utc --date "@$SOURCE_DATE_EPOCH" +%FT%TZ)" 'del(.serialNumber) | .metadata.timestamp = $time | .metadata.component.name = "signaling-client"' \
            > "$work/out/signaling-client-js-$version.cdx.json"

    (cd "$work/out" && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
    rm -rf "$out"
    mkdir -p "$(dirname "$out")"
    cp -r "$work/out" "$out"
)

files="$target/release-files"
make "$files"
if [ "${1:-}" = --twice ]; then
    make "$files.again"
    diff --recursive --brief "$files" "$files.again"
    rm -rf "$files.again"
    echo "made twice, with the same bytes"
fi
ls -l "$files"
