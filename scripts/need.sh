# Functions that install what a script needs. Sourced by the scripts at the top of the tree.

# Debian installs daemons here; not every user's PATH contains it.
PATH="$PATH:/usr/sbin"

# need COMMAND:PACKAGE...  installs the Debian packages whose command is missing.
# A command may be the absolute path of a file.
need() {
    local missing="" wanted
    for wanted in "$@"; do
        command -v "${wanted%%:*}" >/dev/null || [ -e "${wanted%%:*}" ] || missing="$missing ${wanted#*:}"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "missing:$missing (packages of Debian; no apt-get here, please install them)" >&2
        return 1
    fi
    local root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    echo "installing:$missing"
    # Only the programs are needed: as services they would use a port and disk space on this machine.
    local service
    for service in prometheus docker-registry; do
        case "$missing " in *" $service "*)
            [ ! -d /run/systemd/system ] || $root systemctl mask --quiet "$service.service" ;;
        esac
    done
    $root apt-get update -qq
    # shellcheck disable=SC2086  # several words on purpose
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# Installs what `cargo build` needs: Rust itself, and a C compiler with the headers of libc.
need_build() {
    need cc:gcc /usr/include/stdio.h:libc6-dev
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    command -v cargo >/dev/null && return 0
    echo "cargo is missing: install Rust with rustup (https://rustup.rs), then start again" >&2
    return 1
}
