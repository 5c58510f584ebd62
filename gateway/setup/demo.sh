#!/usr/bin/env bash
# `make demo`: the guest image where it can be built, then the demo against the running gateway. Arguments go to the demo.
# Without the image (no Debian packages here) the demo uploads a small made-up disk, which the sim driver takes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$project/gateway/setup/packages.sh" run guest
"$project/gateway/setup/environment.sh"
cd "$project"

if is_linux && have apt-get && image=$("$project/tests/guest/image.sh"); then
  exec "$project/.venv/bin/stratograph" demo --image "$image" "$@"
fi
say "no guest image can be built here: the demo runs on the sim driver"
exec "$project/.venv/bin/stratograph" demo "$@"
