"""A stand-in for QEMU's guest agent, to be run by a shell in the tiny guest, which has no room for the real one."""

from __future__ import annotations

AGENT = r"""
cat >/run/agent <<'END'
exec 3<>$(ls /dev/vport*)
touch /run/listening
while :; do
  while read -r line <&3; do
    id=${line##*\"id\":}
    case $line in
      *guest-sync*) echo "{\"return\": ${id%%[!0-9]*}}" >&3 ;;
      *guest-get-time*) echo "{\"return\": 1700000000000000000}" >&3 ;;
      *fsfreeze-freeze*) sync; echo freeze >>/run/asked; echo "{\"return\": 1}" >&3 ;;
      *fsfreeze-thaw*) echo thaw >>/run/asked; echo "{\"return\": 1}" >&3 ;;
      *) echo "{\"return\": {}}" >&3 ;;
    esac
  done
  usleep 100000
done
END
setsid sh /run/agent </dev/null >/dev/null 2>&1 &
until [ -e /run/listening ]; do sleep 1; done
"""
"""Answers on QEMU's channel as its guest agent would: the guest has no room for the real one. The shell that starts it
waits for it, since what has no session of its own yet goes with the shell. Until libvirt has come to the host's end of
the open channel, and whenever it leaves, there is nothing to read, which is no reason to end.
"""
