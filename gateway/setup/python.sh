#!/usr/bin/env bash
# Print the path of a Python 3.11 or newer, or say what is missing and fail.
# Honours $PYTHON. An interpreter counts only after it has run: version managers leave shims that don't.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

probe='
import sys
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
import sqlite3, ssl, venv
print(getattr(sys, "_base_executable", None) or sys.executable)
'

if [ -n "${PYTHON:-}" ]; then
  "$PYTHON" -c "$probe" || fail "PYTHON=$PYTHON cannot be used: Python 3.11 or newer with ssl, sqlite3 and venv is needed."
  exit 0
fi
for name in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3; do
  have "$name" || continue
  if found=$("$name" -c "$probe" 2>/dev/null); then
    echo "$found"
    exit 0
  fi
done
if have python3; then seen="python3 is $(python3 --version 2>&1)"; else seen="there is no python3"; fi
say "Python 3.11 or newer is needed, and $seen."
fail "Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv; macOS: brew install python@3.13) or set PYTHON=/path/to/python3.11."
