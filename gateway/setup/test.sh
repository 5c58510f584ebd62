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
# Two workers: end-to-end tests keep their order inside one worker by their xdist_group.
exec "$project/.venv/bin/python" -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadgroup --backend both "$@"
