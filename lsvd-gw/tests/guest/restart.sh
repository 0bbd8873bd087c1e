# fio writes and verifies namespace 1 while the target dies and comes back. The line "MARK writing"
# asks the test to do that. Neither fio nor the file system above may see an error.
source ./lib.sh

state_is() { grep -q "^$1\$" "/sys/class/nvme/$CONTROLLER/state"; }
state_is_not() { ! state_is "$1"; }

connect --keep-alive-tmo=5 --ctrl-loss-tmo=300

step "write in the background"
# The rate stretches the writing over the restart (half a minute); the reading after it is not held.
fio --name=restart --filename="$DISK" --size=160M --ioengine=libaio --direct=1 \
  --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=16 --rate=,5m --verify=crc32c \
  --verify_fatal=1 --do_verify=1 --output-format=terse --minimal >/tmp/fio.out 2>&1 &
fio=$!
sleep 3
echo "MARK writing"

wait_for 60 "the loss of the connection" state_is_not live
step "the connection is lost"
kill -0 $fio || fail "fio ended too early"
wait_for 120 "the new connection" state_is live
step "connected again"
wait $fio || { cat /tmp/fio.out; fail "fio saw an error"; }

disconnect
# Lost connections are reported; errors of I/O and of checks are not expected even then.
assert_clean_dmesg 'queue.*(error|closed|failed)|reconnect|Failed to|failed to connect|nvme_tcp|starting error recovery'
echo "restart passed"
