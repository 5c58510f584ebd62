#!/usr/bin/env bash
# Start libvirtd when it is installed and does not answer. Ends well when libvirt answers on its system socket,
# with 1 and a reason when this machine has no usable libvirt (the caller then falls back to the sim driver).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

answers() { timeout 10 virsh --connect qemu:///system version >/dev/null 2>&1; }
# As root the socket tells; as a user who is not yet in the group `libvirt`, only root can ask.
answers_root() { as_root timeout 10 virsh --connect qemu:///system version >/dev/null 2>&1; }

# Whether a daemon of that name runs on this machine itself: containers' and test hosts' daemons are seen too, but serve
# other sockets.
runs() {
  local pid own
  own=$(readlink /proc/self/ns/mnt)
  for pid in $(pidof "$1"); do
    if [ "$(as_root readlink "/proc/$pid/ns/mnt")" = "$own" ]; then return 0; fi
  done
  return 1
}

no() {
  say "$*"
  exit 1
}

# Members of the group libvirt may use the socket, those of kvm the accelerator; membership counts from the user's next
# session on (see run.sh).
join_groups() {
  local group
  [ "$(id -u)" != 0 ] || return 0
  for group in libvirt kvm; do
    getent group "$group" >/dev/null || continue
    case " $(id -nG "$(id -un)") " in *" $group "*) continue ;; esac
    say "adding $(id -un) to the group $group"
    as_root usermod -a -G "$group" "$(id -un)"
  done
}

is_linux || no "libvirt's QEMU driver needs Linux; this is $(uname -s)"
have virsh || no "libvirt is not installed"
answers && exit 0
have libvirtd || have virtqemud || no "no libvirt daemon is installed"
can_be_root || no "libvirtd does not answer, and there is no root or sudo to start it"
join_groups
if ! answers_root; then
  say "starting libvirtd"
  if has_systemd; then
    as_root systemctl start libvirtd.service 2>/dev/null || as_root systemctl start virtqemud.socket
  else
    # What udev does elsewhere. QEMU runs as another user: where it may not open what root may, libvirt trusts none of its
    # cached findings and asks QEMU anew, for seconds, before every answer.
    if [ -c /dev/kvm ] && getent group kvm >/dev/null; then as_root chgrp kvm /dev/kvm && as_root chmod g+rw /dev/kvm; fi
    runs virtlogd || as_root virtlogd --daemon
    options=()
    [ -S /run/dbus/system_bus_socket ] || options=(--config "$project/gateway/setup/libvirtd.conf")
    runs libvirtd || as_root libvirtd --daemon ${options[@]+"${options[@]}"}
  fi
  deadline=$((SECONDS + 30))
  until answers_root; do
    [ "$SECONDS" -lt "$deadline" ] || no "libvirtd was started but does not answer: see its log (journalctl -u libvirtd)"
    sleep 0.2
  done
fi
answers && exit 0
# The group was given just now: run.sh starts the gateway in a session that has it.
exit 2
