# Sourced by every script here: where things are, and how a script speaks and fails.
# shellcheck shell=bash

script=$(readlink -f "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root" || exit

say() { printf '%s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${script##*/}" "$1" >&2
    shift
    [[ $# -eq 0 ]] || printf '    %s\n' "$@" >&2
    exit 1
}

# skipped NAME WHY: for what counts as passed without having been run, here and where all of it is listed.
skipped() {
    say "SKIPPED $1: $2"
    [[ -z ${BULKHEAD_SKIPS:-} ]] || printf '%s: %s\n' "$1" "$2" >>"$BULKHEAD_SKIPS"
}

# The comment at the top of the calling script is its help text.
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$script"; }

# Everything that setup makes. The real folder, so that checkouts which share one through
# BULKHEAD_DEPS also share what cargo has built against it.
deps_dir() { readlink -f .deps; }

# The folder into which cargo builds.
target_dir() { realpath -m "${CARGO_TARGET_DIR:-target}"; }

# Lets cargo, and the workers that it builds, find libtorch.
use_libtorch() {
    LIBTORCH=$(deps_dir)/libtorch
    export LIBTORCH
    # Only there after setup --cuda. A worker that wants a GPU loads libtorch_cuda.so by name.
    if [[ -d $LIBTORCH/cuda ]]; then
        export LD_LIBRARY_PATH=$LIBTORCH/cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    fi
}

# What the harness of the tests starts, and the models and data that some of them need.
tell_tests_where_things_are() {
    local deps
    deps=$(deps_dir)
    export BULKHEAD_BIN_DIR BULKHEAD_MODELS BULKHEAD_MODELS_DATA BULKHEAD_TEST_MODELS BULKHEAD_CLIENT_PYTHON
    export BULKHEAD_TORCH_PYTHON
    BULKHEAD_BIN_DIR=$(target_dir)/debug
    BULKHEAD_MODELS=$deps/models
    BULKHEAD_MODELS_DATA=$deps/models-data
    BULKHEAD_TEST_MODELS=$deps/test-models
    BULKHEAD_CLIENT_PYTHON=$deps/client/bin/python
    BULKHEAD_TORCH_PYTHON=$deps/python/bin/python
}
