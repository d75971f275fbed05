# shellcheck shell=bash
# Packages of other Debian releases, downloaded through apt with folders of its own and unpacked;
# nothing of them is installed. Sourced after common.sh.

later=$lab/apt # apt's own folders for the other releases, apart from the machine's

later_apt() { # RELEASE APT-TOOL ARGUMENTS...
  local release=$1 tool=$2 base=$later/$1
  shift 2
  # Valid-Until: a mirror's copy of the moving release may be weeks old.
  "$tool" -oDir::Etc::SourceList="$base/sources.list" -oDir::Etc::SourceParts=/dev/null \
    -oDir::State::Lists="$base/lists" -oDir::Cache="$base/cache" \
    -oDir::State::status="$base/status" -oDir::Etc::Preferences=/dev/null \
    -oDir::Etc::PreferencesParts=/dev/null -oAPT::Default-Release= \
    -oAcquire::Check-Valid-Until=false -oAPT::Sandbox::User=root \
    -oAPT::Install-Recommends=false -oAcquire::Languages=none \
    -oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

later_update() { # RELEASE: read the lists once a run
  local release=$1 base=$later/$1
  [ -e "$base/.read-by-$$" ] && return
  mkdir -p "$base/lists/partial" "$base/cache/archives/partial"
  : >"$base/status" # an empty machine: dependencies resolve to packages of that release only
  printf 'deb [signed-by=%s] %s %s main\n' \
    /usr/share/keyrings/debian-archive-keyring.gpg "$(debian_mirror)" "$release" \
    >"$base/sources.list"
  say "later releases: reading the package lists of $release"
  run_quietly "$lab/log/apt-$release.txt" later_apt "$release" apt-get update -q ||
    fail "the package lists of $release could not be read"
  rm -f "$base"/.read-by-*
  : >"$base/.read-by-$$"
}

# unpack_later RELEASE PACKAGE FOLDER: download one package and unpack it into FOLDER.
unpack_later() {
  local release=$1 package=$2 folder=$3 debs=$later/$1/debs
  later_update "$release"
  rm -rf "$debs" "$folder"
  mkdir -p "$debs" "$folder"
  (cd "$debs" && run_quietly "$lab/log/download-$package-$release.txt" \
    later_apt "$release" apt-get download "$package") || fail "$package of $release: no download"
  dpkg -x "$debs"/*.deb "$folder"
  rm -rf "$debs"
}

# unpack_closure RELEASE PACKAGE TREE: the package and all that it depends on, unpacked into TREE.
unpack_closure() {
  local release=$1 package=$2 tree=$3 debs=$later/$1/cache/archives name
  later_update "$release"
  rm -f "$debs"/*.deb
  run_quietly "$lab/log/download-$package.txt" later_apt "$release" \
    apt-get install -y -q --download-only --no-install-recommends "$package" ||
    fail "$package of $release: no download"
  rm -rf "$tree"
  # A release with merged /usr: packages may still carry either path.
  mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done
  for name in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$name" | tar -x -C "$tree" --keep-directory-symlink
  done
  rm -f "$debs"/*.deb
}

# copy_program TREE NAME OUT [ARGUMENT...]: out of an unpacked closure a program, just the libraries
# that it loads and the release's own loader, into OUT/lib, and OUT/bin/NAME that runs it with the
# arguments ($here is OUT) before its own.
copy_program() {
  local tree=$1 name=$2 out=$3 loader libraries library
  shift 3
  mkdir -p "$out/bin" "$out/lib"
  loader=$(find "$tree/usr/lib" "$tree/usr/lib64" -name 'ld-linux*.so.*' | head -n 1)
  [ -n "$loader" ] || fail "$name: no loader among its packages"
  cp -L "$loader" "$out/lib/ld.so"
  libraries=$(dirname "$(find "$tree/usr/lib" -name 'libc.so.6' | head -n 1)")
  cp "$tree/usr/bin/$name" "$out/lib/"
  "$loader" --library-path "$libraries" --list "$tree/usr/bin/$name" |
    grep -oE "$tree/[^ ]+" | sort -u | while read -r library; do cp -L "$library" "$out/lib/"; done
  # The place of the script itself: the folder may be moved or mounted elsewhere.
  printf '%s\n' '#!/bin/sh' 'here=$(dirname "$(dirname "$(readlink -f "$0")")")' \
    "exec \"\$here/lib/ld.so\" --library-path \"\$here/lib\" \"\$here/lib/$name\" $* \"\$@\"" \
    >"$out/bin/$name"
  chmod +x "$out/bin/$name"
}
