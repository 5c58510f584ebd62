#!/usr/bin/env bash
# Build a tiny bootable guest disk from Debian packages only: no root, no loop device, no network but the package registry.
#
#   build.sh -o DIR -k KERNEL.deb [-k MODULES.deb ...] [-s DISK_MIB]
#
#   -o  where guest.qcow2, vmlinuz, initrd and cmdline go
#   -k  the kernel package, already downloaded (and the package of its modules, where that is another one)
#   -s  virtual size of the disk in MiB (default 64)
#
# Needs: busybox-static cpio kmod mtools dosfstools syslinux syslinux-common fdisk qemu-utils systemd-boot-efi xz-utils.
# The disk boots under SeaBIOS (syslinux) and under OVMF (systemd-boot); both read one kernel and one initrd from one FAT
# partition. Partition 2 is left blank: the guest formats it once and counts its boots there. About 14 MB.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

out='' size=64 debs=()
while getopts o:k:s: option; do
  case $option in
  o) out=$OPTARG ;;
  k) debs+=("$OPTARG") ;;
  s) size=$OPTARG ;;
  *) exit 2 ;;
  esac
done
if [ -z "$out" ] || [ ${#debs[@]} = 0 ]; then
  sed -n '2,8s/^# \?//p' "$0" >&2
  exit 2
fi
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

unpack_kernel() {
  local deb
  for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$work/kernel"; done
  cp "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"
  modules=$(find "$work/kernel" -type d -path '*/lib/modules/*' -prune | head -n 1)
}

# Copy a module with what it depends on, dependencies first, each once. $1 = the list that init.sh loads, $2 = module.
add_module() {
  local name=${2//-/_} file each
  ! grep -qx "$name" "$initrd"/lib/m/order "$initrd"/lib/m/late 2>/dev/null || return 0
  file=$(find "$modules" \( -name "$name.ko*" -o -name "${name//_/-}.ko*" \) | head -n 1)
  [ -n "$file" ] || return 0 # built into this kernel
  for each in $(modinfo -F depends "$file" | tr , ' '); do add_module "$1" "$each"; done
  case $file in
  *.xz) xz -dc "$file" >"$initrd/lib/m/$name.ko" ;;
  *.zst) zstd -qdc "$file" >"$initrd/lib/m/$name.ko" ;;
  *) cp "$file" "$initrd/lib/m/$name.ko" ;;
  esac
  echo "$name" >>"$initrd/lib/m/$1"
}

make_initrd() {
  local applet each
  initrd=$work/initrd
  mkdir -p "$initrd"/{bin,dev,proc,sys,run,tmp,etc/acpi/PWRF,lib/m,mnt/cidata,data,www/cgi-bin}
  cp "$(command -v busybox)" "$initrd/bin/busybox"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$initrd/bin/$applet"
  done
  touch "$initrd"/lib/m/{order,late}
  # ext4 and hot-plug are built into Debian's cloud kernel; virtio is not. `late` is tried when no virtio disk shows up.
  for each in virtio_pci virtio_blk virtio_net virtio_rng virtio_console virtio_balloon virtio_scsi sd_mod sr_mod isofs button evdev; do
    add_module order "$each"
  done
  for each in ata_piix ahci vmw_pvscsi mptspi vmxnet3 e1000 e1000e; do add_module late "$each"; done
  install -m 755 "$here/init.sh" "$initrd/init"
  (cd "$initrd" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 | gzip -9n) >"$out/initrd"
}

make_boot_partition() {
  local append='console=tty0 console=ttyS0 quiet loglevel=3 mitigations=off nokaslr no_timer_check panic=5'
  echo "$append" >"$out/cmdline"
  fat_kib=$((($(stat -c %s "$out/vmlinuz") + $(stat -c %s "$out/initrd")) / 1024 + 3072))
  fat=$work/fat.img
  truncate -s "${fat_kib}K" "$fat"
  mkfs.fat -n BOOT "$fat" >/dev/null
  printf 'DEFAULT l\nPROMPT 0\nTIMEOUT 0\nLABEL l\n LINUX /vmlinuz\n INITRD /initrd\n APPEND %s\n' "$append" >"$work/syslinux.cfg"
  printf 'timeout 0\ndefault l.conf\n' >"$work/loader.conf"
  printf 'title l\nlinux /vmlinuz\ninitrd /initrd\noptions %s\n' "$append" >"$work/l.conf"
  export MTOOLS_SKIP_CHECK=1
  mmd -i "$fat" ::EFI ::EFI/BOOT ::loader ::loader/entries
  mcopy -i "$fat" "$out/vmlinuz" ::vmlinuz
  mcopy -i "$fat" "$out/initrd" ::initrd
  mcopy -i "$fat" "$work/syslinux.cfg" ::syslinux.cfg
  mcopy -i "$fat" "$work/loader.conf" ::loader/loader.conf
  mcopy -i "$fat" "$work/l.conf" ::loader/entries/l.conf
  mcopy -i "$fat" /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::EFI/BOOT/BOOTX64.EFI
}

make_disk() {
  local raw=$work/disk.raw
  truncate -s "${size}M" "$raw"
  printf '2048,%dK,ef,*\n,,83\n' "$fat_kib" | sfdisk -q "$raw"
  dd if=/usr/lib/syslinux/mbr/mbr.bin of="$raw" conv=notrunc status=none
  dd if="$fat" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
  syslinux --install --offset $((2048 * 512)) "$raw" # the mtools build works on a plain file
  qemu-img convert -c -f raw -O qcow2 "$raw" "$out/guest.qcow2"
}

unpack_kernel
make_initrd
make_boot_partition
make_disk
