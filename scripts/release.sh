#!/usr/bin/env bash
# Makes all files of a release of the commit that is checked out, into target/release-files: the Debian package, the static binaries,
# the packages of the clients, bills of materials (CycloneDX) and checksums. Nothing is uploaded.
# --twice makes them twice, and fails if a byte differs. The two are made side by side, because a build uses one processor for a
# long time; in other folders, a minute apart, with another time zone, and with another mask of permissions.
# PACKAGE_PROFILE=package-test compiles sooner and without optimisation: for trying this script, and for nothing else.
set -eu -o pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
. scripts/side_by_side.sh
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
[ -e "$python/cyclonedx_py" ] || pip3 install --quiet --root-user-action=ignore --target "$python" build==1.3.0 hatchling==1.27.0 cyclonedx-bom==7.5.0
rustup target add "$(uname -m)-unknown-linux-musl"

commit=$(git rev-parse HEAD)

# make OUT  builds in a fresh clone, so that nothing of this folder gets in.
make() (
    out="$1"
    umask 022 # npm packs the modes of the files
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    git clone --quiet --no-hardlinks --no-checkout . "$work/source"
    cd "$work/source"
    git -c advice.detachedHead=false checkout --quiet "$commit"
    version=$(scripts/version.sh)
    # What writes a time writes that of the commit; and no path of this machine is in what is compiled.
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    time=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%FT%TZ)
    cargo_home="${CARGO_HOME:-$HOME/.cargo}"
    RUSTFLAGS="--remap-path-prefix=$work=/build --remap-path-prefix=$cargo_home=/cargo"
    CFLAGS="-ffile-prefix-map=$work=/build -ffile-prefix-map=$cargo_home=/cargo"
    export SOURCE_DATE_EPOCH RUSTFLAGS CFLAGS CARGO_TARGET_DIR="$work/target"
    mkdir "$work/out"

    scripts/package.sh > /dev/null
    cp "$CARGO_TARGET_DIR"/package/*.deb "$work/out"
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
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
        jq --arg time "$time" 'del(.serialNumber) | .metadata.timestamp = $time | .metadata.component.name = "signaling-client"' \
            > "$work/out/signaling-client-js-$version.cdx.json"
    # What the package requires, as it requires it: which version is used is up to the application.
    python3 -c 'import tomllib; print(*tomllib.load(open("clients/python/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > "$work/requirements"
    PYTHONPATH="$python" python3 -W ignore -m cyclonedx_py requirements --pyproject clients/python/pyproject.toml --mc-type library \
        --spec-version 1.5 --output-reproducible --output-file "$work/python.json" "$work/requirements"
    # It lists the requirements, and not that they are the package's.
    jq --arg time "$time" '.metadata.timestamp = $time | (.dependencies[] | select(.ref == "root-component")).dependsOn = [.components[]."bom-ref"]' \
        "$work/python.json" > "$work/out/signaling-client-python-$version.cdx.json"

    (cd "$work/out" && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
    rm -rf "$out"
    mkdir -p "$(dirname "$out")"
    cp -r "$work/out" "$out"
)

make_again() {
    sleep 61
    export TZ=Pacific/Kiritimati
    umask 077
    make "$1"
}

files="$target/release-files"
suite "a release" make "$files"
[ "${1:-}" != --twice ] || suite "the same again" make_again "$files.again"
end_of_suites
if [ "${1:-}" = --twice ]; then
    diff --recursive --brief "$files" "$files.again"
    rm -rf "$files.again"
    echo "made twice, with the same bytes"
fi
ls -l "$files"
