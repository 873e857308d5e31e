# Sourced by setup: how one thing in .deps is made once, and made anew when its inputs change.
# shellcheck shell=bash disable=SC2154 # setup sets deps

# Prints a key that changes when one of these files or the words after -- change.
key_of() {
    local files=()
    while [[ $# -gt 0 && $1 != -- ]]; do files+=("$1") && shift; done
    { sha256sum "${files[@]}" && printf '%s\n' "$@"; } | sha256sum | cut -c 1-16
}

# make_once PATH KEY TEXT COMMAND...
# Runs COMMAND, which makes $deps/PATH, unless PATH was already made whole with the same KEY.
# The stamp is written last and removed first, so what an interrupted run left is made anew.
make_once() {
    local path=$1 key=$2 text=$3 stamp log status began=$SECONDS
    shift 3
    stamp=$deps/.stamps/${path//\//-}
    log=$deps/.log/${path//\//-}
    if [[ -e $deps/$path && -f $stamp && $(<"$stamp") == "$key" ]]; then return; fi

    mkdir -p "$deps/.stamps" "$deps/.log"
    rm -rf "$stamp" "${deps:?}/$path"
    start_clock "$text"
    # Not `if ! ( ... )`: the shell forgets -e in a command whose status is looked at.
    set +e
    (set -e && "$@") >"$log" 2>&1 </dev/null
    status=$?
    set -e
    stop_clock
    if [[ $status -ne 0 ]]; then
        say "$text: failed. The last lines of $log:"
        tail -n 20 "$log" | sed 's/^/    /' >&2
        die "$path could not be made; what is already there is kept, run it again to go on"
    fi
    printf '%s\n' "$key" >"$stamp"
    say "$text: done ($((SECONDS - began)) s)"
}

# On a terminal, shows what is being made and for how long; elsewhere says it once.
start_clock() {
    clock=
    if [[ ! -t 2 ]]; then
        say "$1 ..."
        return
    fi
    # In the background, so that Ctrl-C reaches the command, which stays in the foreground.
    (
        exec 9>&-
        began=$SECONDS
        while kill -0 $$ 2>/dev/null; do
            printf '\r%s ... %d s ' "$1" $((SECONDS - began)) >&2
            sleep 1
        done
    ) &
    clock=$!
}

stop_clock() {
    [[ -n ${clock:-} ]] || return 0
    kill "$clock" 2>/dev/null || true
    wait "$clock" 2>/dev/null || true
    printf '\r\033[K' >&2
}
