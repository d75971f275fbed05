# shellcheck shell=bash
# Shared by the scripts of this folder: where things are, how a step says what it does, and where
# this machine's Debian packages come from. Sourced, never run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lab=$project/.lab # everything that is not installed: unpacked tools, images, caches; git ignores it

say() { printf '%s: %s\n' "${script:-script}" "$*"; }

fail() {
  printf '%s: %s\n' "${script:-script}" "$*" >&2
  exit 1
}

need_root() { # WHAT
  [ "$(id -u)" -eq 0 ] || fail "must run as root to $1 (you are $(id -un))"
}

# run_quietly LOG COMMAND...: the output goes to LOG; its end is shown when the command fails.
run_quietly() {
  local log=$1 status=0
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 25 "$log" >&2
    printf '%s: failed (status %d): %s\nthe whole output: %s\n' \
      "${script:-script}" "$status" "$*" "$log" >&2
  fi
  return "$status"
}

# seconds_since START: one decimal, START from $EPOCHREALTIME.
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'; }

# The mirror that this machine's own package lists come from. No address is written in this project.
debian_mirror() {
  local found
  # The release file tells Debian's own archive from others (also from its security archive).
  found=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(CODENAME)|' \
    'Created-By: Packages' 2>/dev/null |
    awk -F'|' '$2 == "Debian" && $3 == "Debian" && $4 !~ /-/ { print $1; exit }')
  if [ -z "$found" ]; then # before the first apt-get update: the addresses as written
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
      /etc/apt/sources.list.d/*.sources 2>/dev/null | sed 's/#.*//' |
      grep -oE '(https?|file|mirror\+[a-z]+)://?[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ')
  fi
  [ -n "$found" ] || fail "no Debian archive in this machine's apt sources (/etc/apt/sources.list*)"
  printf '%s\n' "${found%/}"
}

# The release name of this machine, for example bookworm.
debian_release() { (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?}"); }
