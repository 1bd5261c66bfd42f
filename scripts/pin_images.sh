#!/usr/bin/env bash
# Pins the images that Dockerfile and the compose files take from a registry to the digests that their tags have now. Docker then
# uses the digest, and the tag says what it is. Run again, it writes newer digests; where a registry cannot be reached, it
# changes nothing.
set -eu
cd "$(dirname "$0")/.."
. scripts/need.sh
need skopeo:skopeo

files="Dockerfile compose.yaml compose.cluster.yaml"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What stands before an image with a tag. `scratch` is none, and what this tree builds itself has no tag.
before='^(FROM|[[:space:]]+image:) '
pinned='@sha256:[0-9a-f]{64}'

# shellcheck disable=SC2086  # several words on purpose
images=$(sed --quiet --regexp-extended "s/$before([^@[:space:]]+:[^@[:space:]]+)($pinned)?( AS .*)?\$/\2/p" $files | sort --unique)
[ -n "$images" ] || { echo "no image with a tag in $files" >&2; exit 1; }
for image in $images; do
    # The digest of the list that has an image for each architecture, where there is such a list.
    if ! timeout 60 skopeo inspect --raw "docker://$image" > "$work/manifest" 2> "$work/error"; then
        cat "$work/error" >&2
        echo "$image: its registry does not answer with a digest, so nothing is pinned; run this where docker pull works" >&2
        exit 1
    fi
    digest=$(skopeo manifest-digest "$work/manifest")
    echo "s,$before(${image//./\\.})($pinned)?( AS .*)?\$,\1 \2@$digest\4," >> "$work/edits"
    echo "$image@$digest"
done
# shellcheck disable=SC2086
sed --in-place --regexp-extended --file "$work/edits" $files
