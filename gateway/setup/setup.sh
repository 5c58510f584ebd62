#!/usr/bin/env bash
# `make setup`: what `make run` does before it serves. It ends well without libvirt: the sim driver needs none.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$project/gateway/setup/packages.sh" run
"$project/gateway/setup/environment.sh"
[ "${STRATOGRAPH_DRIVERS:-}" = sim ] || "$project/gateway/setup/libvirt.sh" || say "libvirt cannot be used now: only the sim driver works"
