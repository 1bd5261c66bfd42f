#!/usr/bin/env bash
# The version stands in Cargo.toml, under [workspace.package], and some files have to repeat it. This fails if one of them differs;
# with a version it writes it everywhere: scripts/version.sh 0.2.0
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[workspace.package\]$/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# Where it is repeated: a file, and what stands before it in the line.
places='Cargo.toml:version = "
clients/python/pyproject.toml:version = "
clients/js/package.json:  "version": "
clients/js/package-lock.json:  "version": "
clients/js/package-lock.json:      "version": "
deploy/kubernetes.yaml:          image: registry.example.com/signaling-server:
deploy/man/signaling-server.1:.TH signaling-server 1  "signaling-server 
deploy/man/manage_users.1:.TH manage_users 1  "manage_users '

next="${1:-$version}"
if ! [[ $next =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
    echo "use a version such as 0.2.0, not \"$next\"" >&2
    exit 1
fi
while IFS=: read -r file before; do
    # The first such line is the one: those of dependencies come later.
    number=$(grep --line-number --max-count=1 --fixed-strings -- "$before" "$file" | cut -d: -f1)
    if ! sed -n "${number}p" "$file" | grep --quiet --fixed-strings -- "$before$version"; then
        echo "$file has another version than Cargo.toml ($version); scripts/version.sh VERSION sets all" >&2
        exit 1
    fi
    [ "$next" = "$version" ] || sed -i "${number}s/${version//./\\.}/$next/" "$file"
done <<< "$places"
if [ "$next" != "$version" ]; then
    # The lock files: nothing but the members of the workspace changes.
    for manifest in Cargo.toml fuzz/Cargo.toml; do cargo metadata --format-version 1 --manifest-path "$manifest" > /dev/null; done
fi
echo "$next"
