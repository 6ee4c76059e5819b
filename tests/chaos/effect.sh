#!/bin/sh
# effect SEED SECONDS STATUS MANNER [INPUT ...]: the ledger program, an application as any other. It says in $LEDGER that it starts, does as it is told, says that it ends.
# It knows nothing of the service that started it, so it cannot be wrong with it. One printf a line: O_APPEND on a local disk keeps lines whole; a missing `end` means killed.
seed=$1 seconds=$2 status=$3 manner=$4
argv=$(printf '%s\0' "$@" | sha256sum | cut -c1-64)
shift 4
read -r boot </proc/sys/kernel/random/boot_id

hashes() { # hashes FILE ...: "name":"sha256", …
  [ $# -eq 0 ] || sha256sum -- "$@" | while read -r hash name; do printf '%s"%s":"%s"' "$comma" "$name" "$hash"; comma=,; done
}
said() { # said KIND REST
  read -r up _ </proc/uptime
  printf '{"kind":"%s","token":"%s","pid":"%s","boot":"%s","at":"%s","up":"%s",%s}\n' "$1" "$AIRAVATA_TOKEN" $$ "$boot" "$(date +%s.%N)" "$up" "$2" >>"$LEDGER"
}

inputs=$(hashes "$@")
said start "\"task\":\"$AIRAVATA_TASK\",\"attempt\":\"$AIRAVATA_ATTEMPT\",\"process\":\"$AIRAVATA_PROCESS\",\"job\":\"${SLURM_JOB_ID-}\",\"restarts\":\"${SLURM_RESTART_COUNT:-0}\",\"argv\":\"$argv\",\"inputs\":{$inputs}"
case $manner in
stubborn) trap '' TERM INT HUP ;;
noisy) n=0; while [ $n -lt 500 ]; do echo "noise $n of $seed"; echo "more noise $n of $seed" >&2; n=$((n + 1)); done ;;
esac
sleep "$seconds"
{ echo "effect of $seed"; [ $# -eq 0 ] || sha256sum -- "$@" | cut -c1-64; } >result.txt
echo "said by $seed"
echo "complained by $seed" >&2
said end "\"status\":\"$status\",\"outputs\":{$(hashes result.txt)}"
exit "$status"
