# shellcheck shell=bash
# Debian's kernels for virtual machines: unpacked, never installed. Sourced after later.sh.
#
# .lab/kernels/NAME/ holds vmlinuz, initramfs (busybox and the modules that a machine of
# test/support/kernels needs) and `version`. NAME is a word below or a kernel's version.

kernels=$lab/kernels
qemu=$lab/qemu
# What `scripts/kernels` runs.
default_kernels=(6.1 6.12 bad newest)
# Releases that are looked through for a version, the most likely one first.
kernel_releases=(trixie-backports trixie bookworm bookworm-backports sid)
# In these a reader that is cut short leaves zeros in an EROFS mount of files; the first that can
# still be downloaded is taken.
bad_kernels=(6.18.15 6.18.12 6.18.9 6.18.5 6.17.13 6.17.8)
kernel_modules=(virtio_pci virtio_blk ext4 fuse loop erofs)

# QEMU of Debian 13 in .lab/qemu (Debian 12's crashed guests on a busy machine), with what a machine without network and screen needs.
prepare_qemu() {
  local release=trixie tree=$later/trixie/tree start=$EPOCHREALTIME
  if [ -x "$qemu/bin/qemu-system-x86_64" ] && [ -s "$qemu/version" ]; then
    say "qemu: $(cat "$qemu/version") ($release) is unpacked"
    return
  fi
  need_root "unpack packages"
  rm -rf "$qemu"
  unpack_closure $release qemu-system-x86 "$tree"
  copy_program "$tree" qemu-system-x86_64 "$qemu" -L '"$here/share"'
  mkdir -p "$qemu/share"
  cp -L "$tree"/usr/share/seabios/*.bin "$tree"/usr/share/qemu/{kvmvapic,linuxboot_dma}.bin \
    "$qemu/share/"
  rm -rf "$tree"
  "$qemu/bin/qemu-system-x86_64" --version | grep -oE '[0-9]+\.[0-9.]+' | head -n 1 >"$qemu/version"
  [ -s "$qemu/version" ] || fail "qemu of $release does not run here"
  say "qemu: unpacked $(cat "$qemu/version") of $release ($(seconds_since "$start"))"
}

# kernel_package NAME: prints `RELEASE PACKAGE`; nothing when there is none.
kernel_package() {
  local name=$1 release version found
  case $name in
    6.1) newest_kernel bookworm ;;
    6.12) newest_kernel trixie ;;
    newest) newest_kernel sid ;;
    bad)
      for version in "${bad_kernels[@]}"; do
        found=$(kernel_of trixie-backports "$version")
        if [ -n "$found" ]; then printf '%s\n' "$found" && return; fi
      done
      ;;
    *)
      for release in "${kernel_releases[@]}"; do
        found=$(kernel_of "$release" "$name")
        if [ -n "$found" ]; then printf '%s\n' "$found" && return; fi
      done
      ;;
  esac
}

newest_kernel() { # RELEASE: what the release's own meta-package names
  local package
  later_update "$1" >&2
  package=$(later_apt "$1" apt-cache depends linux-image-cloud-amd64 |
    grep -oE 'linux-image-[0-9][^ ]*' | head -n 1)
  [ -n "$package" ] && printf '%s %s\n' "$1" "$package"
}

kernel_of() { # RELEASE VERSION
  local package
  later_update "$1" >&2
  package=$(later_apt "$1" apt-cache pkgnames "linux-image-$2" |
    grep -xE "linux-image-${2//./\\.}([+-][^ ]*)?-cloud-amd64" | sort -V | tail -n 1)
  [ -z "$package" ] || printf '%s %s\n' "$1" "$package"
}

# prepare_kernel NAME: .lab/kernels/NAME, once; fails when no release has that kernel.
prepare_kernel() {
  local name=$1 out=$kernels/$1 start=$EPOCHREALTIME found release package tree
  if [ -s "$out/version" ]; then
    say "kernel $name: $(cat "$out/version") is unpacked"
    return
  fi
  need_root "unpack packages"
  found=$(kernel_package "$name")
  [ -n "$found" ] || return 1
  read -r release package <<<"$found"
  tree=$kernels/.unpacked-$name
  rm -rf "$tree" "$out"
  mkdir -p "$tree" "$out"
  # From Debian 14 on the image and its modules are packages of their own.
  local packages=("$package") other
  for other in linux-binary linux-modules; do
    if later_apt "$release" apt-cache depends "$package" | grep -q "Depends: $other-"; then
      packages+=("${package/#linux-image/$other}")
    fi
  done
  for other in "${packages[@]}"; do
    unpack_later "$release" "$other" "$tree/$other"
    # Merged /usr or not; the image's package may be empty beside the other two.
    [ ! -d "$tree/$other/usr/lib/modules" ] || cp -al "$tree/$other/usr/lib/modules" "$tree/"
    [ ! -d "$tree/$other/lib/modules" ] || cp -al "$tree/$other/lib/modules" "$tree/"
    [ ! -d "$tree/$other/boot" ] || cp -al "$tree/$other/boot" "$tree/"
  done
  local version
  version=$(basename "$(find "$tree/modules" -mindepth 1 -maxdepth 1 -type d | head -n 1)")
  find "$tree" -name "vmlinuz*" -type f -exec cp {} "$out/vmlinuz" \; -quit
  [ -s "$out/vmlinuz" ] || fail "$package: no kernel image"
  make_initramfs "$tree" "$version" "$out/initramfs"
  rm -rf "$tree"
  printf '%s\n' "$version" >"$out/version"
  say "kernel $name: unpacked $version of $release ($(seconds_since "$start"))"
}

# make_initramfs TREE VERSION FILE: busybox, the modules in the order of their loading, and /init.
make_initramfs() {
  local tree=$1 version=$2 out=$3 root=$1/initramfs module file name
  mkdir -p "$root"/{bin,modules,dev,proc,sys,disk} "$tree/lib"
  mv "$tree/modules" "$tree/lib/modules"
  depmod -b "$tree" "$version" 2>/dev/null # warns of lists that the package has elsewhere
  cp /bin/busybox "$root/bin/busybox"
  cp "$project/test/support/kernels/init" "$root/init"
  chmod 755 "$root/init"
  for module in "${kernel_modules[@]}"; do
    # Nothing is printed for what is built in.
    modprobe -d "$tree" -S "$version" --show-depends "$module" 2>/dev/null
  done | awk '$1 == "insmod" { print $2 }' | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file")
    name=${name%%.ko*}.ko
    case $file in
      *.xz) xz -dc "$file" >"$root/modules/$name" ;;
      *.zst) zstd -dcq "$file" >"$root/modules/$name" ;;
      *) cp "$file" "$root/modules/$name" ;;
    esac
    printf '%s\n' "$name" >>"$root/modules/order"
  done
  # Not compressed: an emulated processor is slow at that.
  (cd "$root" && find . | cpio -o -H newc --quiet) >"$out"
}
