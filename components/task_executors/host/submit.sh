# submit CONTROL EPOCH NONCE SHA256 WORK_DIR JOB: start the script on stdin at most once for this control directory (= this token), or find what was started before.
# Answers one line: NONCE RECEIPT|ABSENT|REFUSED|CANNOT_TELL <text> NONCE. ABSENT is a proof: nothing was started and nothing under way still can.
control=$1 epoch=$2 nonce=$3 sha256=$4 work=$5 job=$6
trap : HUP PIPE # Caught, not ignored: what is ignored here would stay ignored in the user's program.
answer() {
  printf '\n%s %s %s\n' "$nonce" "$*" "$nonce"
  [ -z "$held" ] || ln -s given "$control/free.$held" 2>/dev/null
  exit 0
}
tell() { # tell [again=1]: of the receipt, unless it is a link or longer than any of ours.
  [ ! -h "$control/receipt" ] && [ "$(wc -c <"$control/receipt")" -le 500 ] || answer CANNOT_TELL "the receipt is broken or forged: a link, or too long"
  answer RECEIPT "$(cat "$control/receipt")${1:+ $1}"
}
held=
error=$(mkdir -p "$control" 2>&1) || { [ -d "$control" ] && answer CANNOT_TELL "$error" || answer ABSENT "$error"; }
fault=$(cat 2>&1 >"$control/script.$epoch.$$") || fault=${fault:-cannot keep the script}
[ -n "$fault" ] || [ "$(sha256sum <"$control/script.$epoch.$$" | cut -c1-64)" = "$sha256" ] || fault="the script arrived damaged"

# (i) the lock: lock.n + 1 may be taken only when lock.n was given back or its holder is provably dead.
me=$(me) n=1 give_up=$(($(date +%s) + 20))
until ln -s "$me" "$control/lock.$n" 2>/dev/null; do
  holder=$(readlink "$control/lock.$n") || answer CANNOT_TELL "the lock can be neither taken nor read: $(ln -s "$me" "$control/lock.$n" 2>&1)"
  [ "$holder" != "$me" ] || break
  if [ -h "$control/free.$n" ] || dead "$holder"; then n=$((n + 1)); continue; fi
  [ "$(date +%s)" -lt "$give_up" ] || answer CANNOT_TELL "the lock is held by $holder"
  sleep 0.05 2>/dev/null || sleep 1
done
held=$n
fp host.lock.after

# (ii) a newer epoch has spoken; (iii) the job was cancelled; (iv) it was started before.
known=0
[ ! -f "$control/epoch" ] || read -r known <"$control/epoch" || answer CANNOT_TELL "the epoch file cannot be read"
[ "$known" -le "$epoch" ] || answer REFUSED "NEWER_EPOCH $known"
[ "$known" -eq "$epoch" ] || echo "$epoch" | keep "$control/epoch" || fault=${fault:-cannot keep the epoch}
fp host.epoch.after
[ ! -f "$control/receipt" ] || tell again=1
[ ! -e "$control/cancelled" ] || answer REFUSED CANCELLED

# Whoever was started under an earlier lock is barred, has died before its receipt, or is waited for.
k=1
while [ "$k" -lt "$n" ]; do
  ln -s barred "$control/guard.$k" 2>/dev/null
  until guard=$(readlink "$control/guard.$k") && { [ "$guard" = barred ] || dead "$guard"; }; do
    [ -n "$guard" ] || answer CANNOT_TELL "guard $k can be neither taken nor read"
    [ ! -f "$control/receipt" ] || tell again=1
    [ "$(date +%s)" -lt "$give_up" ] || answer CANNOT_TELL "guard $k is held by $guard, without a receipt"
    sleep 0.05 2>/dev/null || sleep 1
  done
  k=$((k + 1))
done
[ ! -f "$control/receipt" ] || tell again=1

# (v) From here on nothing was started. What would make a start useless is said now.
[ -z "$fault" ] || answer ABSENT "$fault"
[ -d "$work" ] || answer ABSENT "there is no directory $work"
error=$({ mv -f "$control/script.$epoch.$$" "$control/script.$n" && durable "$control/script.$n" && echo "$me $(date +%s) $sha256" | keep "$control/intent"; } 2>&1) ||
  answer ABSENT "${error:-cannot keep the intent}"
fp host.intent.after

# (vi) start, detached; the wrapper takes guard n, writes the receipt, then runs the program. (vii, viii) wait for the receipt and tell it.
if setsid -f true 2>/dev/null; then # Else it would inherit that a shell's background children ignore SIGINT.
  setsid -f sh "$job" "$control" "$n" "$work" </dev/null >/dev/null 2>&1
else
  setsid sh "$job" "$control" "$n" "$work" </dev/null >/dev/null 2>&1 &
fi
fp host.accept.after
give_up=$(($(date +%s) + 10))
until [ -f "$control/receipt" ]; do
  if guard=$(readlink "$control/guard.$n"); then
    dead "$guard" && [ ! -f "$control/receipt" ] && answer ABSENT "the job died before it wrote its receipt"
    [ "$(date +%s)" -lt "$give_up" ] || [ -f "$control/receipt" ] || answer CANNOT_TELL "the job has its guard but no receipt yet"
  elif [ "$(date +%s)" -ge "$give_up" ]; then
    ln -s barred "$control/guard.$n" 2>/dev/null && answer ABSENT "the job did not start within 10 s"
  fi
  sleep 0.02 2>/dev/null || sleep 1
done
tell
