# kill NONCE: end the jobs whose control directories are on stdin: mark why, TERM to each group, KILL what is left after 5 s. Nothing is signalled that is not provably the job.
# One that has no receipt is barred first: the wrapper looks for the tombstone after it has written its receipt, so either it leaves by itself or its receipt is found here.
nonce=$1 controls=$(cat)
owns() { # The receipt names a group of this boot of this host, whose leader is the one it names, or gone and its number not given anew.
  pid= start= host= its= receipt=
  { read -r receipt <"$1/receipt"; } 2>/dev/null
  for word in $receipt; do case $word in pid=*) pid=${word#*=} ;; start=*) start=${word#*=} ;; host=*) host=${word#*=} ;; boot=*) its=${word#*=} ;; esac; done
  case $pid in '' | *[!0-9]* | 0* | 1 | ????????*) return 1 ;; esac # -1 is everybody; 01 and what overflows to 1 are, too.
  [ "$host" = "$here" ] && [ "$its" = "$boot" ] && members "$pid" "$start"
}
each() { # each COMMAND: run it for every control directory; true if it was for one.
  any=1
  while IFS= read -r control; do "$1" && any=0; done <<END
$controls
END
  return "$any"
}
bar() { [ -f "$control/receipt" ] || { mkdir -p "$control" && : >"$control/cancelled" && durable "$control/cancelled"; }; }
term() { bar; [ ! -f "$control/exit" ] && owns "$control" && { date +%s | keep "$control/killed"; kill -TERM "-$pid" 2>/dev/null; said=killed; }; printf '\n%s %s %s %s\n' "$nonce" "${control##*/}" "${said:-ended}" "$nonce"; said=; }
lives() { [ -e "$control/killed" ] && owns "$control"; }
end() { lives && kill -KILL "-$pid" 2>/dev/null; }
each term
give_up=$(($(date +%s) + 5))
while [ "$(date +%s)" -lt "$give_up" ] && each lives; do sleep 0.1 2>/dev/null || sleep 1; done
each end
exit 0
