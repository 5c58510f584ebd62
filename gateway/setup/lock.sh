#!/usr/bin/env bash
# `make lock`: write requirements.lock anew from pyproject.toml: for every platform and Python from 3.11 on, with hashes,
# with all extras and the development tools, without any registry's address. Pins stay unless `make lock UPGRADE=1`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$project/gateway/setup/environment.sh"
cd "$project"
options=()
[ -z "${UPGRADE:-}" ] || options+=(--upgrade)
"$project/.venv/bin/uv" pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --emit-build-options --no-header --quiet \
  --output-file requirements.lock ${options[@]+"${options[@]}"} >/dev/null
