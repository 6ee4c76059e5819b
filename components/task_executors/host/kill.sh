# kill NONCE: end the jobs whose control directories are on stdin: mark why, TERM to the group, KILL after 5 s. Nothing is signalled that is not provably the job.
nonce=$1
owns() { # The group is the job's: its leader lives and is the one of the receipt, or it is dead and its id not given anew.
  case $pid in '' | *[!0-9]* | 0* | 1 | ????????*) return 1 ;; esac # -1 is everybody; 01 and what overflows to 1 are, too.
  [ "$host" = "$here" ] && [ "$its" = "$boot" ] && members "$pid" "$start"
}
while IFS= read -r control; do
  pid= start= host= its= receipt= said=ended
  { read -r receipt <"$control/receipt"; } 2>/dev/null
  for word in $receipt; do case $word in pid=*) pid=${word#*=} ;; start=*) start=${word#*=} ;; host=*) host=${word#*=} ;; boot=*) its=${word#*=} ;; esac; done
  if [ ! -f "$control/exit" ] && owns; then
    date +%s | keep "$control/killed"
    kill -TERM "-$pid" 2>/dev/null
    tries=0
    while owns && [ "$tries" -lt 50 ]; do sleep 0.1 2>/dev/null || sleep 1; tries=$((tries + 1)); done
    ! owns || kill -KILL "-$pid" 2>/dev/null
    said=killed
  fi
  printf '\n%s %s %s %s\n' "$nonce" "${control##*/}" "$said" "$nonce"
done
