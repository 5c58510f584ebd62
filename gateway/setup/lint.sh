#!/usr/bin/env bash
# `make lint`: every static check, all of them run, and the failed ones named at the end.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$project/gateway/setup/packages.sh" lint
"$project/gateway/setup/environment.sh"
cd "$project"
bin=$project/.venv/bin
failed=()

check() { # $1 = name, the rest = the command
  local name=$1
  shift
  say "$name"
  "$@" || failed+=("$name")
}

scripts=()
while IFS= read -r file; do scripts+=("$file"); done < <(git ls-files -- '*.sh' .ci/run)
check "ruff check" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "import-linter" "$bin/lint-imports"
if have shellcheck; then
  check "shellcheck" shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
else
  [ "${CI:-}" != true ] || failed+=("shellcheck is missing")
  say "shellcheck is not installed: shell scripts were not checked"
fi
[ ${#failed[@]} = 0 ] || fail "failed: ${failed[*]}"
say "all static checks passed"
