#!/usr/bin/env bash
# Make or refresh .venv from requirements.lock, every archive checked against its hash, and the project in editable form.
# A stamp holds what went in (lock, project file, interpreter, libvirt or not), so that a second run only compares it.
# libvirt-python has no wheel: it is compiled against libvirt's headers where they are, and left out where they are not.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

venv=$project/.venv
lock=$project/requirements.lock
python=$("$project/gateway/setup/python.sh")

# True when libvirt-python can be compiled here.
can_compile_libvirt() {
  have cc && have pkg-config && pkg-config --exists libvirt &&
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

if can_compile_libvirt; then libvirt=with; else libvirt=without; fi
wanted="$(cat "$lock" "$project/pyproject.toml" | cksum) $("$python" -VV | tr '\n' ' ') $python $libvirt libvirt $project"
if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then exit 0; fi

say "making .venv with $("$python" --version), $libvirt libvirt-python"
rm -f "$venv/.stamp"
if ! "$venv/bin/python" -c 'import os, pip, sys; sys.exit(os.path.realpath(sys._base_executable) != os.path.realpath(sys.argv[1]))' \
  "$python" 2>/dev/null; then
  "$python" -m venv --clear "$venv" ||
    fail "this Python cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One package of the lock is everything from its name to the next line that is neither indented nor a comment.
awk '/^[^ #]/ { on = /^libvirt-python==/ } !on' "$lock" >"$work/wheels.txt"
awk '/^[^ #]/ { on = /^libvirt-python==/ } on' "$lock" >"$work/libvirt.txt"

pip=("$venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check --no-input install)
"${pip[@]}" --require-hashes --no-deps -r "$work/wheels.txt" >&2
# Compiled with the setuptools of the lock: an isolated build would fetch one that nobody has checked.
if [ "$libvirt" = with ]; then "${pip[@]}" --require-hashes --no-deps --no-build-isolation -r "$work/libvirt.txt" >&2; fi
"${pip[@]}" --no-deps --no-build-isolation --editable "$project" >&2
printf '%s\n' "$wanted" >"$venv/.stamp"
