#!/usr/bin/env bash
# Print the path of the guest image, building it when it is not there yet: image.sh
# It is kept under the state directory (STRATOGRAPH_STATE_DIR, else .state) by a hash of the scripts and the versions of
# the kernel and busybox packages. A lock lets several processes ask at once: one builds, the others wait for it.
source "$(dirname "${BASH_SOURCE[0]}")/../../gateway/setup/common.sh"

here=$project/tests/guest
if [ "$(uname -sm)" != "Linux x86_64" ] || ! have apt-get; then
  fail "the guest image is built from Debian's or Ubuntu's x86-64 packages"
fi
for need in busybox cpio modinfo mcopy mkfs.fat syslinux sfdisk qemu-img; do
  have "$need" || fail "$need is missing: gateway/setup/packages.sh guest"
done

# The newest kernel package and, where it is another one, that of its modules: "name=version" each.
kernel_packages() {
  local meta name
  for meta in linux-image-cloud-amd64 linux-image-virtual; do
    name=$({ apt-cache depends "$meta" 2>/dev/null || true; } | awk '/Depends: linux-image-/ { name = $2 } END { print name }')
    [ -n "$name" ] || continue
    { apt-cache show --no-all-versions "$name" "linux-modules-${name#linux-image-}" 2>/dev/null || true; } |
      awk '/^Package:/ { name = $2 } /^Version:/ { print name "=" $2 }'
    return
  done
}

refresh() {
  can_be_root || fail "the package lists are missing or old, and there is no root or sudo for apt-get update"
  as_root apt-get -q update >&2
}

download() { # into $1, all of "$2 ..."
  local folder=$1
  shift
  # The sandbox user _apt may not enter our folder; hashes are checked either way.
  (cd "$folder" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$@") >&2
}

packages=$(kernel_packages)
if [ -z "$packages" ]; then
  refresh
  packages=$(kernel_packages)
fi
[ -n "$packages" ] || fail "this distribution offers no linux-image-cloud-amd64 or linux-image-virtual"

key=$( (cat "$here/build.sh" "$here/init.sh" && echo "$packages" && dpkg-query -W busybox-static) | sha256sum | cut -c 1-16)
cache=${STRATOGRAPH_STATE_DIR:-$project/.state}/guest
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
image=$cache/$key/guest.qcow2
exec 9>"$cache/lock"
flock 9
if [ ! -e "$image" ]; then
  say "building the guest image from $(echo "$packages" | head -n 1)"
  work=$(mktemp -d "$cache/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # shellcheck disable=SC2086  # one word per package
  download "$work" $packages || { refresh && packages=$(kernel_packages) && download "$work" $packages; }
  options=()
  for deb in "$work"/*.deb; do options+=(-k "$deb"); done
  "$here/build.sh" -o "$work/out" "${options[@]}" >&2
  rm -rf "${cache:?}/$key"
  mv "$work/out" "$cache/$key"
fi
echo "$image"
