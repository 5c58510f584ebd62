#!/usr/bin/env bash
# Print the path of a raw disk with an installed Debian 12 on it, building it when it is not there yet: foreign.sh
# It is what a machine of VMware's holds: a partition table, GRUB, systemd, and a file system table that names sda, so
# that it comes up whole on virtio only when somebody put that right. virt-v2v recognises it, unlike the tiny guest.
# Once up it says on its serial port where its root and its swap are, and what drives its network card.
# It is kept under the state directory by a hash of this script. Needs root (debootstrap) and no loop device.
source "$(dirname "${BASH_SOURCE[0]}")/../../gateway/setup/common.sh"

for need in debootstrap sfdisk mkfs.ext4 mkswap chroot; do
  have "$need" || fail "$need is missing: gateway/setup/packages.sh convert"
done
[ "$(id -u)" = 0 ] || fail "debootstrap needs root"

mib=1280      # of the disk
root_at=1     # where its partitions begin, in MiB
swap_at=1201

write_files() { # into the system at $1
  local root=$1
  echo accounts >"$root/etc/hostname"
  printf '/dev/sda1 / ext4 errors=remount-ro 0 1\n/dev/sda2 none swap sw 0 0\n' >"$root/etc/fstab"
  printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/any.network"
  cat >"$root/usr/local/sbin/ready" <<'END'
#!/bin/sh
for card in /sys/class/net/e*; do net=$(basename "$(readlink "$card/device/driver")"); done
swap=$(awk 'NR == 2 { print $1 }' /proc/swaps)
echo "SG: READY root=$(findmnt -no SOURCE /) swap=$swap net=$net" >/dev/ttyS0
END
  chmod 755 "$root/usr/local/sbin/ready"
  cat >"$root/etc/systemd/system/ready.service" <<'END'
[Unit]
Wants=swap.target
After=swap.target systemd-networkd.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/ready
[Install]
WantedBy=multi-user.target
END
  chroot "$root" systemctl -q enable ready.service systemd-networkd.service
  chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service
}

write_grub() { # into the system at $1
  local root=$1 boot=$1/boot/grub version
  version=$(basename "$root"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
  cat >"$boot/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
menuentry "Debian" {
  linux /boot/vmlinuz-$version root=LABEL=accounts ro console=ttyS0
  initrd /boot/initrd.img-$version
}
END
  chroot "$root" grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /boot/grub/core.img \
    biosdisk part_msdos ext2 normal configfile linux serial terminal
  mkdir -p "$boot/i386-pc"
  cp "$root"/usr/lib/grub/i386-pc/*.{mod,lst} "$boot/i386-pc/"
}

put() { # $1 of the disk $2, at the sector $3, with the options of dd that follow
  dd if="$1" of="$2" bs=512 seek="$3" conv=notrunc,sparse status=none "${@:4}"
}

build() { # in the folder $1
  local root=$1/root disk=$1/foreign.raw
  debootstrap --variant=minbase --include=linux-image-cloud-amd64,systemd-sysv,udev,initramfs-tools bookworm "$root" >&2
  # Not by debootstrap, which would have it configured before there is a kernel.
  DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq --no-install-recommends install grub-pc >&2
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  write_files "$root"
  write_grub "$root"
  truncate -s "${mib}M" "$disk"
  printf 'label: dos\nstart=%sMiB, size=%sMiB, type=83, bootable\nstart=%sMiB, type=82\n' \
    "$root_at" "$((swap_at - root_at))" "$swap_at" | sfdisk -q "$disk"
  # Two features that Debian 12's GRUB cannot read yet.
  mkfs.ext4 -q -L accounts -O '^orphan_file,^metadata_csum_seed' -E "offset=$((root_at << 20))" -d "$root" \
    "$disk" "$((swap_at - root_at))M" >&2
  truncate -s "$((mib - swap_at))M" "$1/swap"
  mkswap -q "$1/swap" >&2
  put "$1/swap" "$disk" "$((swap_at * 2048))"
  # What grub-install writes, which would want a device: boot.img looks for the core right behind it.
  put "$root/usr/lib/grub/i386-pc/boot.img" "$disk" 0 bs=440 count=1
  put "$root/boot/grub/core.img" "$disk" 1
  rm -rf "$root" "$1/swap"
}

key=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c 1-16)
cache=${STRATOGRAPH_STATE_DIR:-$project/.state}/foreign
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/lock"
flock 9
if [ ! -e "$cache/$key/foreign.raw" ]; then
  say "building a disk with Debian 12 on it"
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work" # the sandbox user of apt enters it
  build "$work"
  mkdir -p "$cache/$key"
  mv "$work/foreign.raw" "$cache/$key/"
fi
echo "$cache/$key/foreign.raw"
