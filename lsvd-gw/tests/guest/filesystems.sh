# ext4 and xfs on namespace 1: some thousand files, their checksums after a new mount, fsck, trim.
source ./lib.sh

# 500 files of each of these sizes in bytes, from empty-ish to a few extents long.
sizes=(13 700 4096 5000 16384 40000)

make_tree() {
  local size
  for size in "${sizes[@]}"; do
    mkdir -p "$1/$size"
    head -c $((size * 500)) /dev/urandom | (cd "$1/$size" && split -a 3 -d -b "$size")
  done
}

exercise() { # exercise FILESYSTEM CHECK...
  local filesystem=$1
  shift
  step "$filesystem"
  wipefs -q -a "$DISK"
  "mkfs.$filesystem" -q "$DISK"
  mount "$DISK" /mnt
  cp -r /tmp/tree /mnt/tree
  sync
  umount /mnt
  mount "$DISK" /mnt
  (cd /mnt/tree && sha256sum --quiet -c /tmp/checksums)
  rm -r /mnt/tree/4*
  sync
  fstrim -v /mnt
  umount /mnt
  "$@" "$DISK" >/tmp/check.out 2>&1 || { cat /tmp/check.out; fail "$* found damage"; }
}

step "make the files"
make_tree /tmp/tree
(cd /tmp/tree && find . -type f -exec sha256sum {} + >/tmp/checksums)
[ "$(wc -l </tmp/checksums)" = $((500 * ${#sizes[@]})) ] || fail "the tree is not whole"

connect
exercise ext4 e2fsck -f -n
exercise xfs xfs_repair -n
disconnect
assert_clean_dmesg
echo "filesystems passed"
