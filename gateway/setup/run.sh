#!/usr/bin/env bash
# `make run`: all set-up, then the gateway in place of this shell, so that its signals are the gateway's.
# The gateway itself migrates the database, makes the admin and prints the banner.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

here=$project/gateway/setup
"$here/packages.sh" run
"$here/environment.sh"
cd "$project"

serve=("$project/.venv/bin/stratograph" serve)
drivers=${STRATOGRAPH_DRIVERS:-}
if [ "$drivers" = sim ]; then exec "${serve[@]}"; fi
code=0
"$here/libvirt.sh" || code=$?
if [ "$code" = 0 ] && ! "$project/.venv/bin/python" -c 'import libvirt' 2>/dev/null; then
  say "libvirt-python could not be compiled here (it needs libvirt's headers, pkg-config, a C compiler, Python's headers)"
  code=1
fi
case $code in
0) ;;
2) # The new membership of the group libvirt counts in a new session: sudo makes one and passes signals on.
  settings=$(compgen -e | { grep '^STRATOGRAPH_' || true; } | paste -sd, -)
  exec sudo --user="$(id -un)" ${settings:+--preserve-env="$settings"} -- "${serve[@]}"
  ;;
*)
  if [ -z "$drivers" ]; then
    say "running on the simulated data centre (driver sim): servers are simulated, nothing is virtualised"
    export STRATOGRAPH_DRIVERS=sim
  fi
  ;;
esac
exec "${serve[@]}"
