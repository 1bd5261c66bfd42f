# Sourced by the scripts at the top of the tree: runs suites side by side.
#
# What a suite prints goes into a file, which is printed whole when the suite has ended; the suites that failed are
# printed last. Each suite is a process group of its own, so that it is ended with all that it has started.

suite_logs=$(mktemp -d)
suites_at_once=4
declare -A suite_of=() suite_began=()
failed_suites=()

# suite NAME COMMAND...  starts a suite once fewer than `suites_at_once` are running.
suite() {
    local name=$1
    shift
    while [ "${#suite_of[@]}" -ge "$suites_at_once" ]; do end_of_one_suite; done
    echo "--- $name begins"
    set -m
    (
        set -e
        "$@"
    ) >"$suite_logs/$name" 2>&1 </dev/null &
    set +m
    suite_of[$!]=$name
    suite_began[$!]=$SECONDS
}

# Waits for the suite that ends first, and prints what it has said.
end_of_one_suite() {
    local pid status=0
    wait -n -p pid "${!suite_of[@]}" || status=$?
    local name=${suite_of[$pid]} took=$((SECONDS - suite_began[$pid]))
    unset "suite_of[$pid]"
    if [ "$status" = 0 ]; then
        echo "=== $name, $took s"
        cat "$suite_logs/$name"
        echo "=== $name passed"
    else
        echo "=== $name FAILED with $status after $took s; its output is at the end"
        failed_suites+=("$name")
    fi
}

# Waits for all suites. Fails where one of them has, after printing what those have said.
end_of_suites() {
    while [ "${#suite_of[@]}" -gt 0 ]; do end_of_one_suite; done
    [ "${#failed_suites[@]}" -gt 0 ] || return 0
    local name
    for name in "${failed_suites[@]}"; do
        echo "=== $name FAILED"
        cat "$suite_logs/$name"
    done
    echo "failed: ${failed_suites[*]}" >&2
    return 1
}

# Ends what is still running, and removes the files.
clear_suites() {
    local pid
    for pid in "${!suite_of[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
    rm -rf "$suite_logs"
}
trap clear_suites EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
