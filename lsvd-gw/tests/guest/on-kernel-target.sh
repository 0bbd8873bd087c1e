# Proves the other scripts without our target: serves two files with the kernel's own target on
# the guest's loopback, then runs SCRIPT.
#
#   on-kernel-target.sh SCRIPT [ARGUMENT]...
#
# With RESTARTS set, the target goes away for some seconds after the script's MARK line.
source ./lib.sh

nvmet=/sys/kernel/config/nvmet
subsystem=$nvmet/subsystems/$SUBSYSTEM
mkdir "$subsystem"
echo 1 >"$subsystem/attr_allow_any_host"
for number in 1 2; do
  truncate -s 1G "/root/namespace$number"
  mkdir "$subsystem/namespaces/$number"
  printf '/root/namespace%s' "$number" >"$subsystem/namespaces/$number/device_path"
  printf '0e1c5a0d-93c4-4dbb-8f57-6c736476000%s' "$number" >"$subsystem/namespaces/$number/device_nguid"
  echo 1 >"$subsystem/namespaces/$number/enable"
done
mkdir "$nvmet/ports/1"
printf ipv4 >"$nvmet/ports/1/addr_adrfam"
printf tcp >"$nvmet/ports/1/addr_trtype"
printf '%s' "$TARGET" >"$nvmet/ports/1/addr_traddr"
printf '%s' "$PORT" >"$nvmet/ports/1/addr_trsvcid"
ln -s "$subsystem" "$nvmet/ports/1/subsystems/$SUBSYSTEM"

vanish_after_mark() {
  local line
  while IFS= read -r line; do
    echo "$line"
    if [[ $line == "MARK "* ]]; then
      rm "$nvmet/ports/1/subsystems/$SUBSYSTEM"
      sleep 3
      ln -s "$subsystem" "$nvmet/ports/1/subsystems/$SUBSYSTEM"
    fi
  done
}

if [ -n "${RESTARTS:-}" ]; then
  bash "./$1" "${@:2}" 2>&1 | vanish_after_mark
else
  bash "./$1" "${@:2}"
fi
