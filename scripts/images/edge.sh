#!/bin/sh
# Makes the unusual things that images may hold, one stage a layer: `edge.sh 1|2|3` as root with
# CAP_MKNOD, CAP_SYS_ADMIN (trusted.*) and CAP_SETFCAP. Later stages change what earlier ones made.
set -eu
mkdir -p /edge
cd /edge
long=$(printf 'n%.0s' $(seq 255))
part=$(printf 'd%.0s' $(seq 100))

first() {
  # modes and capabilities
  cp /bin/true setuid && chmod 4755 setuid
  cp /bin/true setgid && chmod 2755 setgid
  mkdir -m 1777 sticky
  mkdir -m 000 closed
  cp /bin/true capable && setcap cap_net_bind_service,cap_net_raw+ep capable
  # extended attributes, also an empty one and one with every kind of byte
  echo x >attributes
  setfattr -n user.key -v value attributes
  setfattr -n user.bytes -v 0x00ff10 attributes
  setfattr -n user.empty attributes
  setfattr -n trusted.mark -v 1 attributes
  # nodes
  mknod null c 1 3
  mknod loop b 7 0
  mknod gone-node c 1 5
  mkfifo fifo
  # links
  echo h >hard1 && ln hard1 hard2 && mkdir sub && ln hard1 sub/hard3
  ln -s hard1 soft
  ln -s "/nowhere/$long" dangling
  ln -s ../../../../../../etc/passwd upwards
  # names
  : >"$long"
  mkdir -p "$part/$part/$part/$part" && echo deep >"$part/$part/$part/$part/file"
  printf x >'sp ace'
  printf x >'new
line'
  printf x >'quote"\'
  printf x >'ünï-日本-🐋'
  printf x >"$(printf 'odd\377bytes')"
  echo exe >.wh-not
  # sizes, owners, times
  : >empty
  truncate -s 64M sparse && printf MIDDLE | dd of=sparse bs=1 seek=33554432 conv=notrunc 2>/dev/null
  echo big >owners && chown 4000000000:3999999999 owners
  echo old >old && touch -d '1969-12-31 23:59:58 UTC' old
  echo new >future && touch -d '2101-01-01 UTC' future
  # a folder of many files
  mkdir many
  seq 20000 | sed 's/^/many\/f/' | xargs touch
  # what the later stages replace
  mkdir opaque removed && echo a >opaque/a && echo b >opaque/b && mkdir opaque/d && echo c >opaque/d/c
  echo gone >removed/gone && echo stay >removed/stay
  echo f >file-to-folder
  mkdir folder-to-file folder-to-link && echo z >folder-to-file/z
  ln -s sub link-to-folder
  echo m >mode-changed
  echo o >owner-changed
  mkdir reborn && echo 1 >reborn/1
}

second() {
  rm -rf opaque && mkdir opaque && echo n >opaque/new
  rm removed/gone
  rm file-to-folder && mkdir file-to-folder && echo in >file-to-folder/in
  rm -r folder-to-file && echo now >folder-to-file
  rm -r folder-to-link && ln -s sub folder-to-link
  rm link-to-folder && mkdir link-to-folder && echo q >link-to-folder/q
  chmod 0600 mode-changed
  chown 33:33 owner-changed
  rm hard2           # one name of three goes
  echo more >>hard1  # and the rest part: a copy in this layer, the old file in the lower one
  rm -r reborn
  rm many/f7 many/f19999
  setfattr -x user.key attributes
}

third() {
  mkdir reborn && echo 3 >reborn/3
  echo back >removed/gone
  rm opaque/new
  rm gone-node
  rm -rf sticky
}

case $1 in
  1) first ;;
  2) second ;;
  3) third ;;
esac
