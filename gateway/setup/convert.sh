#!/usr/bin/env bash
# `make convert`: a Debian of its own is converted by virt-v2v on its way from the ESXi simulator to KVM, and boots there.
# Apart from `make test`, because without hardware virtualization it takes a quarter of an hour. Needs root, as
# debootstrap does. LIBGUESTFS_BACKEND_SETTINGS= (empty) lets the appliance use /dev/kvm.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

here=$project/gateway/setup
"$here/packages.sh" run test convert
"$here/environment.sh"
cd "$project"
exec "$project/.venv/bin/python" -m pytest tests/migration/real_conversion.py -p no:randomly "$@"
