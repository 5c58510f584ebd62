#!/usr/bin/env bash
# Install the system packages of the named groups, only those that are missing: packages.sh run|guest|test|convert|lint ...
# With nothing to do it makes one dpkg query and ends. Where it may not or cannot install, it says what is missing and
# ends well for `run`, `guest` and `lint` (the cloud then works on the sim driver), badly for `test`.
# Services of test packages (PostgreSQL, RabbitMQ, Redis) are kept from starting: tests start their own.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A group's packages; "command:package" counts as present when the command is there, whoever installed it.
packages_of() {
  case $1 in
  run)
    echo libvirt-daemon-system libvirt-clients libvirt-dev qemu-system-x86 qemu-utils dnsmasq-base iptables nftables \
      iproute2 procps ca-certificates pkg-config gcc libc6-dev
    python_packages
    ;;
  guest) echo busybox-static cpio kmod mtools dosfstools syslinux syslinux-common fdisk systemd-boot-efi xz-utils qemu-utils ;;
  test)
    packages_of guest
    echo postgresql rabbitmq-server redis-server chromium:chromium iproute2 nftables ovmf util-linux \
      golang-go golang-github-vmware-govmomi-dev node:nodejs npm:npm
    ;;
  # The appliance of virt-v2v starts a kernel of this machine's packages.
  convert) echo virt-v2v nbdkit libnbd-bin qemu-utils debootstrap e2fsprogs fdisk linux-image-cloud-amd64 ;;
  lint) echo shellcheck:shellcheck ;;
  *) fail "no such group of packages: $1" ;;
  esac
}

# Debian's own Python comes without venv and headers; any other brings both or cannot be mended by apt.
python_packages() {
  local python version
  python=$("$project/gateway/setup/python.sh" 2>/dev/null) || { echo python3 python3-venv python3-dev; return; }
  case $(readlink -f "$python") in
  /usr/bin/python3.*)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "python$version-venv python$version-dev"
    ;;
  esac
}

missing_of() {
  local each names=()
  # shellcheck disable=SC2046  # one word per package
  for each in $(for group in "$@"; do packages_of "$group"; done); do
    case $each in
    *:*) have "${each%%:*}" || names+=("${each#*:}") ;;
    *) names+=("$each") ;;
    esac
  done
  [ ${#names[@]} -gt 0 ] || return 0
  { dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null || true; } | sed -n 's/ installed$//p' | sort -u |
    comm -13 - <(printf '%s\n' "${names[@]}" | sort -u)
}

optional() { # what to do when packages cannot be installed: tests need them, the rest has the sim driver
  case " $* " in *" test "*) return 1 ;; esac
}

keep_services_quiet() {
  [ ! -e /usr/sbin/policy-rc.d ] || return 0
  # shellcheck disable=SC2064
  trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
  as_root chmod 755 /usr/sbin/policy-rc.d
}

install() {
  local wanted=() known=() unknown=() each
  # shellcheck disable=SC2206
  wanted=($1)
  say "installing ${wanted[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
  for each in "${wanted[@]}"; do
    if apt-cache show "$each" >/dev/null 2>&1; then known+=("$each"); else unknown+=("$each"); fi
  done
  [ ${#unknown[@]} = 0 ] || say "not among this distribution's packages: ${unknown[*]}"
  [ ${#known[@]} = 0 ] ||
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${known[@]}"
}

groups="$*"
if ! have apt-get || ! have dpkg-query; then
  say "no apt-get here: system packages are left as they are"
  optional "$@" && exit 0
  fail "the tests need Debian's packages (PostgreSQL, RabbitMQ, Redis, libvirt, QEMU, Chromium)"
fi
missing=$(missing_of "$@" | tr '\n' ' ')
[ -n "${missing// /}" ] || exit 0
if ! can_be_root; then
  say "missing system packages, and no root or sudo to install them: $missing"
  optional "$@" && exit 0
  exit 1
fi
case " $groups " in *" test "*) keep_services_quiet ;; esac
# To standard error: what a script prints is its answer, and this is progress.
install "$missing" >&2
for service in postgresql rabbitmq-server redis-server; do # nor are they to start with the machine from now on
  case " $groups " in *" test "*) ;; *) continue ;; esac
  case " $missing " in *" $service "*) ! has_systemd || as_root systemctl --quiet disable "$service" >&2 ;; esac
done
