#!/usr/bin/env bash
# Makes the packages of the clients as a registry would take them, and has each checked by its registry's own linters. Nothing
# is uploaded. All of them, and the server, have one version.
set -eu
cd "$(dirname "$0")/../.."
. scripts/need.sh
need_build
need node:nodejs npm:npm pip3:python3-pip

out="${CARGO_TARGET_DIR:-$PWD/target}"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

version=$(scripts/version.sh)

npm ci --prefix tests/packages/lint --prefer-offline --no-audit --no-fund --silent
npm pack --silent --pack-destination "$made" ./clients/js > /dev/null
lint=tests/packages/lint/node_modules/.bin
"$lint/publint" --strict "$made/signaling-client-$version.tgz"
# The client is an ES module, which is said in its README.
"$lint/attw" --profile esm-only --no-emoji "$made/signaling-client-$version.tgz"

python="$out/tools/python-build"
[ -e "$python/twine" ] ||
    pip3 install --quiet --root-user-action=ignore --target "$python" build==1.3.0 hatchling==1.27.0 twine==6.2.0
export PYTHONPATH="$python"
python3 -m build --no-isolation --outdir "$made" clients/python > /dev/null
python3 -m twine check --strict "$made"/*.whl "$made"/*.tar.gz
for name in LICENSE-MIT LICENSE-APACHE; do
    python3 -m zipfile --list "$made"/*.whl | grep -q "licenses/$name" || { echo "no $name in the wheel" >&2; exit 1; }
    tar --list --file "$made/signaling-client-$version.tgz" | grep -q "package/$name" || { echo "no $name in the npm package" >&2; exit 1; }
done

cargo package --locked --package signaling-client --allow-dirty --no-verify --quiet --target-dir "$made/target"
for name in LICENSE-MIT LICENSE-APACHE CHANGELOG.md README.md; do
    tar --list --file "$made/target/package/signaling-client-$version.crate" | grep -q "/$name$" || { echo "no $name in the crate" >&2; exit 1; }
done
echo "the packages of the clients: 3 passed, 0 failed"
