# shellcheck shell=bash
# What every set-up script shares: where the project lies, how to speak, how to become root.
# Sourced, never run. It changes nothing on the machine. Works with the bash 3.2 of macOS.
set -euo pipefail

# shellcheck disable=SC2034  # for those who source this
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"  # libvirtd, dnsmasq, mkfs.fat: not on every user's PATH

say() { printf 'stratograph: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
is_linux() { [ "$(uname -s)" = Linux ]; }
has_systemd() { [ -d /run/systemd/system ] && have systemctl; }

# True when commands can be run as root: as root, with a sudo that asks nothing, or by asking at a terminal.
can_be_root() {
  [ "$(id -u)" = 0 ] && return 0
  have sudo || return 1
  sudo -n true 2>/dev/null && return 0
  [ -t 0 ] && sudo -v
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
