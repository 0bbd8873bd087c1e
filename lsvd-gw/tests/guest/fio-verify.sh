# fio writes and verifies namespace 1: with one queue and with four, with digests and without.
source ./lib.sh
SIZE=${SIZE:-48M}

verify() { # verify QUEUES [CONNECT_OPTION...]
  local queues=$1 sector
  shift
  step "$queues queues $*"
  connect --nr-io-queues="$queues" "$@"
  sector=$(blockdev --getss "$DISK")
  fio --name=verify --filename="$DISK" --size="$SIZE" --ioengine=libaio --direct=1 \
    --rw=randwrite --bsrange="$sector-128k" --blockalign="$sector" --iodepth=16 --fsync=64 \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed="$queues" --output-format=terse \
    --minimal >/tmp/fio.out || { cat /tmp/fio.out; fail "fio --verify"; }
  fio --name=jobs --filename="$DISK" --size=8M --offset_increment=8M --numjobs="$queues" \
    --ioengine=libaio --direct=1 --rw=randrw --bs=4k --iodepth=8 --verify=crc32c \
    --verify_fatal=1 --output-format=terse --minimal >/tmp/fio.out ||
    { cat /tmp/fio.out; fail "fio, $queues jobs"; }
  disconnect
}

verify 1
verify 4
verify 1 --hdr-digest --data-digest
verify 4 --hdr-digest --data-digest
assert_clean_dmesg
echo "fio passed"
