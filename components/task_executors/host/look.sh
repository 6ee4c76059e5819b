# look NONCE: for each control directory on stdin one line: NONCE <directory's name> key=value … NONCE. One call per host, however many jobs.
# Liveness is looked at before the exit file: a job that ended in between is seen as ended, never as vanished.
nonce=$1 now=$(date +%s)
while IFS= read -r control; do
  pid= start= host= began= code= ended= alive= guard= receipt= exit= killed= cancelled= reads=
  told="boot=$boot here=$here now=$now"
  [ -d "$control" ] || told="$told gone=1"
  [ ! -e "$control/cancelled" ] || told="$told cancelled=1"
  [ ! -e "$control/killed" ] || told="$told killed=1"
  [ ! -e "$control/duplicate" ] || told="$told duplicate=1"
  [ ! -e "$control/intent" ] || told="$told intent=1"
  if [ -h "$control/receipt" ] || { [ -f "$control/receipt" ] && read -r receipt <"$control/receipt" && [ "${#receipt}" -gt 500 ]; }; then
    told="$told refused=1" # A link, or longer than any of ours: others' lines must not be cut for it.
  elif [ -n "$receipt" ]; then
    for word in $receipt; do case $word in pid=*) pid=${word#*=} ;; start=*) start=${word#*=} ;; host=*) host=${word#*=} ;; boot=*) its=${word#*=} ;; began=*) began=${word#*=} ;; esac; done
    dead "$host:$pid:$start:$its"
    case $? in 0) alive=no ;; 1) alive=yes ;; *) alive=unknown ;; esac
    # The wrapper is gone but members of its group run on (it was killed by name, or out of memory). Its id cannot be given anew while they live.
    [ "$alive" = no ] && [ "$its" = "$boot" ] && [ ! -f "$control/exit" ] && members "$pid" "$start" && alive=group
    told="$told pid=$pid start=$start began=$began host=$host receipt_boot=$its alive=$alive"
  elif [ -d "$control" ]; then
    for guard in "$control"/guard.*; do [ ! -h "$guard" ] || told="$told guard=$(readlink "$guard")"; done
  fi
  if [ -f "$control/exit" ] && read -r exit <"$control/exit" && [ "${#exit}" -le 4000 ]; then
    told="$told $exit"
    for name in stdout stderr; do told="$told $name=$(tail -c 4096 "$control/work/$name" 2>/dev/null | base64 | tr -d '\n')"; done
  fi
  printf '\n%s %s %s %s\n' "$nonce" "${control##*/}" "$told" "$nonce"
done
