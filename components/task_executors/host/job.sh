# job CONTROL N WORK_DIR: the wrapper around one job. Takes guard N or leaves; writes its receipt durably; only then runs the script; leaves its exit file whatever ends it.
control=$1 n=$2 work=$3
me=$(me)
trap : TERM INT HUP # The program gets them too; this one stays to tell how it ended.
fp job.guard.before
ln -s "$me" "$control/guard.$n" 2>/dev/null || [ "$(readlink "$control/guard.$n")" = "$me" ] || { echo "$me" >>"$control/duplicate"; exit 99; }
fp job.guard.after
[ ! -e "$control/cancelled" ] || exit 98
began=$(date +%s)
# Room for the exit file is taken now: a disk that is full at the end must not hide how the job ended.
printf '%4000s\n' reserved | keep "$control/exit.room" || exit 97
[ -h "$control/work" ] || ln -s "$work" "$control/work"
fp host.receipt.before
echo "pid=$$ start=$(start $$) boot=$boot host=$here began=$began" | keep "$control/receipt" || exit 97
fp host.receipt.after

leave() {
  fp job.exit.before
  tries=0
  until printf '%-4000s\n' "code=$1 began=$began ended=$(date +%s)" 1<>"$control/exit.room" && durable "$control/exit.room" && mv -f "$control/exit.room" "$control/exit"; do
    tries=$((tries + 1))
    [ "$tries" -lt 360 ] || break
    sleep 10
  done
  sync "$control" 2>/dev/null || sync
  fp job.exit.after
  exit "$1"
}
[ ! -e "$control/cancelled" ] || leave 98
cd "$work" || leave 97
unset LC_ALL
read -r first <"$control/script.$n"
case $first in *' -l') sh -l "$control/script.$n" </dev/null ;; *) sh "$control/script.$n" </dev/null ;; esac
leave $?
