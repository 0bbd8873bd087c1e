# One session with nvme-cli, from discovery to disconnection: what each command prints must hold
# what it is asked for. Expects namespace 1 in $SUBSYSTEM, written anywhere in its first 16 MiB.
source ./lib.sh

# says PATTERN COMMAND...: the command succeeds and prints a line that matches.
says() {
  local pattern=$1 output
  shift
  output=$("$@" 2>&1) || { echo "$output"; fail "$*"; }
  echo "$output" | grep -q -E -- "$pattern" || { echo "$output"; fail "$* does not say $pattern"; }
}

# identical FROM_MIB TO_MIB: this part of the disk holds what the pattern holds.
identical() {
  cmp <(dd if="$DISK" bs=1M skip="$1" count=$(($2 - $1)) iflag=direct status=none) \
    <(dd if=/tmp/pattern bs=1M skip="$1" count=$(($2 - $1)) status=none)
}

step discover
says "subnqn: +$SUBSYSTEM" nvme discover -t tcp -a "$TARGET" -s "$PORT"

step connect
connect
says "$SUBSYSTEM" nvme list-subsys
says "${DISK##*/}|$DISK" nvme list
[ -z "${MODEL:-}" ] || says "$MODEL" nvme list
[ -z "${SERIAL:-}" ] || says "$SERIAL" nvme list

step identify
says "subnqn\s*: *$SUBSYSTEM" nvme id-ctrl "/dev/$CONTROLLER"
[ -z "${SERIAL:-}" ] || says "sn\s*: *$SERIAL" nvme id-ctrl "/dev/$CONTROLLER"
says 'vwc\s*: *0x[0-9a-f]*[13579bdf]' nvme id-ctrl "/dev/$CONTROLLER"
says 'nsze\s*: *0x[0-9a-f]*[1-9a-f]' nvme id-ns "$DISK"
says 'uuid\s*: ' nvme ns-descs "$DISK"
says 'nguid\s*: ' nvme ns-descs "$DISK"
says '0x1$' nvme list-ns "/dev/$CONTROLLER"

step logs and features
says 'critical_warning\s*: 0' nvme smart-log "/dev/$CONTROLLER"
says 'Error Log Entries' nvme error-log "/dev/$CONTROLLER"
says 'Current value:.*1' nvme get-feature "/dev/$CONTROLLER" -f 6
says 'Current value:' nvme get-feature "/dev/$CONTROLLER" -f 7
says 'Current value:' nvme get-feature "/dev/$CONTROLLER" -f 0x0f

step write, flush and read
dd if=/dev/urandom of=/tmp/pattern bs=1M count=16 status=none
dd if=/tmp/pattern of="$DISK" bs=1M oflag=direct status=none
nvme flush "$DISK"
dd if=/tmp/pattern of="$DISK" bs=4k count=4 oflag=direct,dsync conv=notrunc status=none
identical 0 16

step write zeroes and deallocate
bytes=$(blockdev --getss "$DISK")
nvme write-zeroes "$DISK" --start-block=$((1048576 / bytes)) --block-count=$((1048576 / bytes - 1))
dd if=/dev/zero of=/tmp/pattern bs=1M seek=1 count=1 conv=notrunc status=none
identical 0 16
nvme dsm "$DISK" --ad --slbs=$((4194304 / bytes)) --blocks=$((1048576 / bytes))
identical 0 4
blkdiscard --zeroout --offset 8388608 --length 4194304 "$DISK"
dd if=/dev/zero of=/tmp/pattern bs=1M seek=8 count=4 conv=notrunc status=none
identical 5 16 # the fifth MiB is deallocated and may hold anything

step reset
nvme reset "/dev/$CONTROLLER"
wait_for 60 "the controller after its reset" grep -q live "/sys/class/nvme/$CONTROLLER/state"
identical 0 4

step disconnect
says 'disconnected 1' disconnect
assert_clean_dmesg
echo "session passed"
