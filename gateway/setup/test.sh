#!/usr/bin/env bash
# `make test`: install and start what the tests need, then run them all. Arguments go to pytest.
# In CI (CI=true) nothing may be missing: a machine without libvirt fails here instead of skipping quietly.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

here=$project/gateway/setup
groups=(run test)
is_linux || groups=(run)
"$here/packages.sh" "${groups[@]}"
"$here/environment.sh"
cd "$project"

if ! "$here/libvirt.sh"; then
  [ "${CI:-}" != true ] || fail "in CI the tests need a working libvirt"
  say "the tests that need libvirt will say so"
fi
# A machine may say that Python keeps no bytecode: then each of some hundred processes would compile the project anew.
unset PYTHONDONTWRITEBYTECODE
"$project/.venv/bin/python" -m compileall -q -j 2 gateway resolvers workers drivers
# Three workers on two cores: much of the time is waiting for guests and servers. Which tests stay in one worker and
# which begin first stands in tests/schedule.py.
exec "$project/.venv/bin/python" -m pytest -n "${PYTEST_WORKERS:-3}" --dist loadscope --backend both "$@"
