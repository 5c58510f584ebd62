#!/usr/bin/env bash
# `make clients`: every client that others generate from the schema, alone: TypeScript, Relay, Python, the npm clients
# for subscriptions, and the audits of graphql-http. CONNECTS=10000 opens so many connections in the search for leaks.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

here=$project/gateway/setup
groups=(run test)
is_linux || groups=(run)
"$here/packages.sh" "${groups[@]}"
"$here/environment.sh"
cd "$project"
export STRATOGRAPH_TEST_CONNECTS=${CONNECTS:-250}
exec "$project/.venv/bin/python" -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadgroup \
  tests/clients tests/transport/test_audits.py tests/transport/test_clients.py tests/transport/test_leaks.py "$@"
