# shellcheck shell=bash
# What all scripts share: paths, progress, failures.
#
# A script that sources this prints everything for people on standard error; standard output is
# for results that other programs read.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$ROOT/build
LOGS=$BUILD/logs
PROGRAM=${0##*/}
readonly ROOT BUILD LOGS PROGRAM

# A minimal root shell may lack the directories of the system's own tools.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }
warn() { printf '%s: warning: %s\n' "$PROGRAM" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "$PROGRAM" "$1" >&2
    shift
    (($# == 0)) || printf '    %s\n' "$@" >&2
    exit 1
}

# steps N: the number of steps that `step` counts towards.
# step TITLE [ESTIMATE]: announces the next one.
STEP=0 STEPS=0
steps() { STEP=0 STEPS=$1; }
step() {
    STEP=$((STEP + 1))
    printf '[%d/%d] %s%s\n' "$STEP" "$STEPS" "$1" "${2:+ ($2)}" >&2
}

# duration SECONDS: "4 min 05 s" for people.
duration() {
    if (($1 < 60)); then
        printf '%d s' "$1"
    else
        printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

# fail_with_log WHAT LOG: ends the script, with the end of the log in view.
fail_with_log() {
    printf '%s: error: %s failed; the end of %s:\n' "$PROGRAM" "$1" "$2" >&2
    tail -n "${LOG_LINES:-20}" "$2" | sed 's/^/    | /' >&2
    exit 1
}

# logged WHAT LOGNAME COMMAND...: runs a command quietly, its output in build/logs/LOGNAME.log.
logged() {
    local what=$1 log=$LOGS/$2.log
    shift 2
    mkdir -p "$LOGS"
    "$@" >"$log" 2>&1 </dev/null || fail_with_log "$what" "$log"
}

# as_root COMMAND...: sudo where it is needed.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# lock NAME [--shared]: only one script at a time gets past here, or none but those that share; held
# until the script ends. LOCK_FD is then the lock, for relock.
lock() {
    local fd
    mkdir -p "$BUILD"
    exec {fd}>"$BUILD/.$1.lock"
    # shellcheck disable=SC2034  # read by the callers
    LOCK_FD=$fd
    relock "$fd" "${2:---exclusive}" "build/.$1.lock"
}

# relock FD --shared|--exclusive [NAME]
relock() {
    if ! flock "$2" --nonblock "$1"; then
        say "waiting for another run that holds ${3:-the same files} ..."
        flock "$2" "$1"
    fi
}

# with_lock NAME COMMAND...: runs it, in a subshell, while no other script runs anything under NAME.
with_lock() {
    local file=$BUILD/.$1.lock
    shift
    mkdir -p "$BUILD"
    (
        flock 9
        "$@" 9>&-
    ) 9>"$file"
}

# jobs_default: how many compilers to run at once.
jobs_default() { nproc 2>/dev/null || echo 2; }

# version_of COMMAND...: the first version number that the command prints, e.g. 1.85.1
version_of() { "$@" 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1 || true; }

# version_at_least HAVE WANT
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }
