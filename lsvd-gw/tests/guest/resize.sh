# The disk grows under a connected host. The line "MARK connected" asks the test to resize the image
# to $SECTORS sectors of 512 bytes; nothing is done here for the kernel to see it.
source ./lib.sh

size_is() { [ "$(cat "/sys/block/${DISK##*/}/size")" = "$1" ]; }

connect
old=$(cat "/sys/block/${DISK##*/}/size")
[ "$old" -lt "$SECTORS" ] || fail "it has $old sectors already"
echo "MARK connected"
wait_for 60 "the new size" size_is "$SECTORS"

step "write over the old end and up to the new one"
first=$((old / 2048 - 1)) count=$(((SECTORS - old) / 2048 + 1))
dd if=/dev/urandom of=/tmp/pattern bs=1M count=$count status=none
dd if=/tmp/pattern of="$DISK" bs=1M seek=$first oflag=direct conv=notrunc status=none
cmp /tmp/pattern <(dd if="$DISK" bs=1M skip=$first count=$count iflag=direct status=none)

disconnect
assert_clean_dmesg
echo "resize passed"
