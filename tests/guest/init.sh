#!/bin/sh
# /init of the tiny test guest, run by busybox: process 1, DHCP script, hot-plug handler and power button in one file.
# What happens is told on the serial console in lines that tests wait for:
#   SG: BOOT | SG: NIC eth0 52:54:.. 10.0.0.5/24 | SG: DISK vdb serial=.. size=SECTORS lines=N | SG: CIDATA id=.. host=..
#   SG: METADATA id=.. | SG: SSHKEY ssh-ed25519 AAAA.. | SG: USERDATA rc=N | SG: USERDATA again | SG: DISKSIZE vdb SECTORS
#   SG: DISKGONE vdb | SG: NICGONE eth1 | SG: CPUS N | SG: POWERBUTTON
#   SG: READY ip=.. host=.. id=.. boots=N up=SECONDS      once, when everything above that belongs to the boot is done
# Then the console is a root shell. http://IP/ says who the guest is, and http://IP/cgi-bin/run runs the posted shell
# script: a guest for TESTS only. (No wget -T below: it crashes in Debian's static busybox, hence `timeout wget`.)
export PATH=/bin:/sbin:/usr/sbin
# Each marker has a line of its own, even where the shell's prompt stands on the console.
say() {
  if [ -e /run/prompt ]; then printf '\n'; fi >/dev/console
  echo "SG: $*" >/dev/console
}

# A data disk: format it if blank, mount it, add a line to its log. $1 = vdb.
disk() {
  d=$1 t=/data/$1
  grep -q " $t " /proc/mounts && return
  [ "$(dd if="/dev/$d" bs=4k count=1 2>/dev/null | tr -d '\0' | wc -c)" = 0 ] && mke2fs "/dev/$d" >/dev/null 2>&1
  mkdir -p "$t"
  mount -t ext4 "/dev/$d" "$t" 2>/dev/null || mount -t ext2 "/dev/$d" "$t" 2>/dev/null || {
    rmdir "$t"
    say "DISK $d nofs"
    return
  }
  cat /proc/sys/kernel/random/boot_id >>"$t/log"
  sync
  say "DISK $d serial=$(cat "/sys/block/${d%%[0-9]*}/serial" 2>/dev/null) size=$(cat "/sys/class/block/$d/size") lines=$(wc -l <"$t/log")"
}

# A network card: the address that the NoCloud network-config gives it, or else DHCP in the background. $1 = eth0.
nic() {
  ip link set "$1" up
  static=$(cat "/run/net/$(cat "/sys/class/net/$1/address")" "/run/net/$1" 2>/dev/null | head -n 1)
  if [ -z "$static" ]; then
    udhcpc -i "$1" -O staticroutes -O mtu -b -t 8 -T 1 -A 5 -s /init -p "/run/dhcp.$1" >/dev/null 2>&1
    return
  fi
  # shellcheck disable=SC2086  # three words: address gateway name-servers
  set -- "$1" $static
  ip addr replace "$2" dev "$1"
  [ "$3" = - ] || ip route replace default via "$3" dev "$1" metric $((100 + ${1#eth}))
  [ "$4" = - ] || echo "$4" | tr , '\n' | sed 's/^/nameserver /' >/etc/resolv.conf
  say "NIC $1 $(cat "/sys/class/net/$1/address") $2"
}

# Read network-config (version 1 or 2, YAML or JSON) into /run/net/MAC or /run/net/NAME: "address gateway name-servers".
# Every bracket and comma becomes a line, so that each line is one key with its value or one element of a list.
read_network_config() {
  mkdir -p /run/net
  sed 's/[]{}[,]/\n/g' "$1" | sed 's/["'\'']//g; s/^[ -]*//; s/ *$//; s/\(: \?\)/\1 /' | awk '
    function flush() {
      if (address != "") { file = "/run/net/" (mac != "" ? tolower(mac) : name)
        print address, (gateway != "" ? gateway : "-"), (dns != "" ? dns : "-") > file; close(file) }
      address = gateway = dns = mac = ""; to = "" }
    { key = $1; value = $2; sub(/:$/, "", key) }
    $1 ~ /:$/ && NF == 1 && key !~ /^(network|ethernets|match|nameservers|addresses|routes|subnets|config|address|search|dns_nameservers)$/ { flush(); name = key; next }
    key == "type" && value == "physical" { flush(); next }
    key == "name" { name = value }
    key == "macaddress" || key == "mac_address" { mac = value }
    key == "gateway4" || key == "gateway" || key == "via" { gateway = value }
    key == "address" && value ~ /\// { address = value }
    key == "addresses" && value != "" { key = value; $0 = value }
    $1 ~ /^[0-9]+\.[0-9.]+\/[0-9]+$/ { address = $1 }
    $1 ~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/ { dns = dns (dns != "" ? "," : "") $1 }
    END { flush() }'
}

# Run user data once per instance, as cloud-init does. $1 = file, $2 = instance id, $3 = where that is remembered.
user_data() {
  [ "$(head -c 2 "$1" 2>/dev/null)" = '#!' ] || return
  if [ "$(cat "$3" 2>/dev/null)" = "$2" ]; then
    say "USERDATA again"
    return
  fi
  cp "$1" /tmp/user-data
  chmod +x /tmp/user-data
  /tmp/user-data
  rc=$?
  echo "$2" >"$3"
  sync
  say "USERDATA rc=$rc"
}

# shellcheck disable=SC2154  # udhcpc gives these names
bound() {
  ip addr flush dev "$interface"
  ip addr add "$ip/${mask:-24}" dev "$interface"
  [ -n "$router" ] && ip route add default via "${router%% *}" dev "$interface" metric $((100 + ${interface#eth})) 2>/dev/null
  if [ -n "$staticroutes" ]; then
    # shellcheck disable=SC2086
    set -- $staticroutes
    while [ $# -ge 2 ]; do
      if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"; else ip route add "$1" via "$2" dev "$interface"; fi 2>/dev/null
      shift 2
    done
  fi
  [ -n "$dns" ] && for s in $dns; do echo "nameserver $s"; done >/etc/resolv.conf
  [ -n "$domain" ] && echo "search $domain" >>/etc/resolv.conf
  [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
  [ -n "$hostname" ] && hostname "$hostname"
  say "NIC $interface $(cat "/sys/class/net/$interface/address") $ip/${mask:-24}"
}

# shellcheck disable=SC2154  # the kernel gives these names
hotplug() {
  case "$SUBSYSTEM:$ACTION:$DEVTYPE" in
  block:add:disk) case "$DEVNAME" in vd* | sd*) disk "$DEVNAME" ;; esac ;;
  block:remove:disk)
    umount -l "/data/$DEVNAME" 2>/dev/null
    say "DISKGONE $DEVNAME"
    ;;
  block:change:disk) case "$DEVNAME" in vd* | sd*) say "DISKSIZE $DEVNAME $(cat "/sys/block/$DEVNAME/size")" ;; esac ;;
  net:add:*) case "$INTERFACE" in eth*) nic "$INTERFACE" ;; esac ;;
  net:remove:*)
    say "NICGONE $INTERFACE"
    kill "$(cat "/run/dhcp.$INTERFACE")" 2>/dev/null
    ;;
  cpu:add:*)
    echo 1 >"/sys$DEVPATH/online"
    say "CPUS $(grep -c ^processor /proc/cpuinfo)"
    ;;
  esac
}

case "$0" in
*uevent)
  hotplug
  exit
  ;;
esac
case "$1" in
deconfig)
  ip addr flush dev "$interface"
  exit
  ;;
bound | renew)
  bound
  exit
  ;;
leasefail | nak) exit ;;
power)
  say POWERBUTTON
  sync
  umount -a -r 2>/dev/null
  poweroff -f
  exit
  ;;
esac

# ------------------------------------------------------------------ process 1 from here
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
say BOOT
while read -r m; do insmod "/lib/m/$m.ko" 2>/dev/null; done </lib/m/order
[ -e /sys/block/vda ] || while read -r m; do insmod "/lib/m/$m.ko" 2>/dev/null; done </lib/m/late
ln -sf /init /bin/on-uevent
printf '#!/bin/sh\nexec /init power\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid -l /dev/null
[ -e /dev/hwrng ] && dd if=/dev/hwrng of=/dev/urandom bs=64 count=1 2>/dev/null
ip link set lo up
hostname tiny

# the NoCloud drive comes first: it may hold the cards' addresses
id=none host='' seed=
for d in /dev/vd? /dev/sd? /dev/sr?; do
  # the volume's name in an ISO 9660 descriptor; busybox's findfs looks at the Joliet name, which many writers garble
  case $(dd if="$d" bs=8 skip=4101 count=1 2>/dev/null) in cidata* | CIDATA*) seed=$d && break ;; esac
done
if [ -n "$seed" ] && mount -t iso9660 -o ro "$seed" /mnt/cidata 2>/dev/null; then
  # YAML or JSON: one key a line
  sed 's/[{},]/\n/g' /mnt/cidata/meta-data >/tmp/meta-data
  id=$(sed -n 's/^ *"\?instance-id"\?: *"\?\([^" ]*\)"\?.*/\1/p' /tmp/meta-data | head -n 1)
  host=$(sed -n 's/^ *"\?local-hostname"\?: *"\?\([^" ]*\)"\?.*/\1/p' /tmp/meta-data | head -n 1)
  [ -n "$host" ] && hostname "$host"
  say "CIDATA id=$id host=$host"
  [ -s /mnt/cidata/network-config ] && read_network_config /mnt/cidata/network-config
fi
uevent /bin/on-uevent >/dev/null 2>&1 &
for _ in 1 2 3 4 5; do
  [ -e /sys/class/net/eth0 ] && break
  usleep 100000
done
for n in /sys/class/net/eth*; do [ -e "$n" ] && nic "${n##*/}"; done &

# the root disk's partition 2 keeps state across reboots
boots=1 root='' kept=/tmp
for d in vda sda; do [ -e "/dev/${d}2" ] && root=$d && break; done
if [ -n "$root" ]; then
  disk "${root}2"
  kept=/data/${root}2
  boots=$(wc -l <"$kept/log")
fi
for p in /sys/block/vd? /sys/block/sd?; do
  d=${p##*/}
  [ -e "$p" ] && [ "$d" != "$root" ] && [ "$(cat "$p/ro")" = 0 ] && disk "$d"
done

# wait (at most 8 s) for the first card's address
ip0=
if [ -e /sys/class/net/eth0 ]; then
  for _ in $(seq 80); do
    ip0=$(ip -4 -o addr show eth0 | sed -n 's/.*inet \([0-9.]*\).*/\1/p' | head -n 1)
    [ -n "$ip0" ] && break
    usleep 100000
  done
fi
[ -n "$host" ] && hostname "$host"
if [ "$id" != none ]; then
  cat /mnt/cidata/meta-data /mnt/cidata/user-data 2>/dev/null |
    grep -oE '(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ +[A-Za-z0-9+/]+=*' | sort -u | while read -r key; do say "SSHKEY $key"; done
  user_data /mnt/cidata/user-data "$id" "$kept/instance"
elif [ -n "$ip0" ]; then
  m=http://169.254.169.254/latest
  if mid=$(timeout 3 wget -q -O - $m/meta-data/instance-id 2>/dev/null) && [ -n "$mid" ]; then
    id=$mid
    say "METADATA id=$id"
    name=$(timeout 3 wget -q -O - $m/meta-data/hostname 2>/dev/null) && hostname "$name"
    timeout 3 wget -q -O /tmp/fetched $m/user-data 2>/dev/null && user_data /tmp/fetched "$id" "$kept/instance"
  fi
fi
echo "host=$(hostname) id=$id ip=$ip0 boots=$boots" >/www/index.html
cat >/www/cgi-bin/run <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
head -c "${CONTENT_LENGTH:-0}" >/tmp/r.$$
sh /tmp/r.$$ 2>&1
echo "rc=$?"
CGI
chmod +x /www/cgi-bin/run
httpd -p 80 -h /www
nc -ll -p 22 -e echo SSH-2.0-tiny 2>/dev/null &
say "READY ip=$ip0 host=$(hostname) id=$id boots=$boots up=$(cut -d' ' -f1 /proc/uptime)"
: >/run/prompt
while :; do
  setsid cttyhack sh
  sleep 1
done
