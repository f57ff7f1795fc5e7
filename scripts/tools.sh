#!/bin/sh
# Names every tool that is missing, each with the command that installs it.
# usage: scripts/tools.sh [PYTHON]
python=${1:-python3}
missing=0

need() { # need WHAT "COMMAND THAT INSTALLS IT"
    echo "missing: $1" >&2
    echo "   try:  $2" >&2
    missing=1
}

command -v cargo >/dev/null 2>&1 ||
    need "cargo, Rust's stable toolchain" "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
for component in fmt clippy; do
    ! command -v cargo >/dev/null 2>&1 || cargo $component --version >/dev/null 2>&1 ||
        need "cargo $component" "rustup component add rustfmt clippy"
done
command -v cc >/dev/null 2>&1 || need "cc, a C linker" "apt-get install build-essential"
if ! command -v "$python" >/dev/null 2>&1; then
    need "$python, Python 3.10 or newer" "apt-get install python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    need "Python 3.10 or newer ($python is $("$python" --version 2>&1))" "make PYTHON=python3.11, or apt-get install python3"
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    need "Python's venv module" "apt-get install python3-venv"
fi
exit $missing
