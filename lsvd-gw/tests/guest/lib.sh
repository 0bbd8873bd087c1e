# Sourced by the scripts that run in the guest: names of the target, steps, and a clean end.
#
# TARGET, PORT and SUBSYSTEM come from the test; the defaults are those of the kernel's own target
# in on-kernel-target.sh.
set -euo pipefail

TARGET=${TARGET:-127.0.0.1}
PORT=${PORT:-4420}
SUBSYSTEM=${SUBSYSTEM:-nqn.2019-05.io.lsvd:cnode1}

step() { echo "== $*"; }
fail() { echo "FAILED: $*"; exit 1; }

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds.
wait_for() {
  local tenths=$(($1 * 10)) what=$2
  shift 2
  until "$@"; do
    tenths=$((tenths - 1))
    [ "$tenths" -gt 0 ] || fail "waited in vain for $what"
    sleep 0.1
  done
}

connect() { # connect [OPTION...]: sets CONTROLLER (nvme0) and DISK (/dev/nvme0n1)
  # A subsystem's disk is named for its first controller: without native multipath there is one.
  nvme connect -t tcp -a "$TARGET" -s "$PORT" -n "$SUBSYSTEM" --reconnect-delay=1 "$@"
  wait_for 60 "the first namespace" find_disk
}

find_disk() {
  local name
  for name in /sys/class/nvme/nvme*; do
    [ -e "$name/subsysnqn" ] && [ "$(cat "$name/subsysnqn")" = "$SUBSYSTEM" ] || continue
    CONTROLLER=${name##*/}
    DISK=$(find_namespace 1) && return 0
  done
  return 1
}

find_namespace() { # find_namespace NSID: its device; the kernel's numbering is not in NSID order
  local directory
  for directory in /sys/class/block/nvme*n*; do
    [ -e "$directory/nsid" ] && [ "$(cat "$directory/nsid")" = "$1" ] || continue
    [ -b "/dev/${directory##*/}" ] || continue
    echo "/dev/${directory##*/}"
    return 0
  done
  return 1
}

disconnect() { nvme disconnect -n "$SUBSYSTEM"; }

# assert_clean_dmesg [EXPECTED]: nothing in the kernel's messages that a healthy session does not
# leave behind, but for lines that match EXPECTED. An emulated machine that is short of CPU while it
# boots may find its timer broken.
assert_clean_dmesg() {
  local complaints
  complaints=$(dmesg | grep -E -i \
    'i/o error|critical|BUG:|Oops|WARNING:|Call Trace|blocked for more|protocol error|unexpected|digest|corrupt|Buffer I/O' |
    grep -v -E 'ignoring|no digest|MP-BIOS bug' | grep -v -E "${1:-^$}" || true)
  [ -z "$complaints" ] || { echo "$complaints"; fail "the kernel complained"; }
}
