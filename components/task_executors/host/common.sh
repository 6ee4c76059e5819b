# Words shared by the host's helpers; put in front of each when it is staged (host_scripts.py). POSIX sh, no bashisms; LC_ALL=C so that messages can be read.
# An identity is host/pid-namespace:pid:start:boot: it names one process for ever, and can be proved dead only on the very host (and pid namespace) it names.
LC_ALL=C; export LC_ALL; umask 077
here=$(uname -n)/$(readlink /proc/self/ns/pid 2>/dev/null | tr -cd 0-9)
read -r boot </proc/sys/kernel/random/boot_id || boot=unknown

# probe PID: its state, process group and start time (clock ticks since boot) in p_state, p_group, p_start; all empty if there is no such process.
probe() {
  p_line= p_state= p_group= p_start=
  { read -r p_line <"/proc/$1/stat"; } 2>/dev/null
  set -f; set -- ${p_line##*) }; set +f
  p_state=${1-} p_group=${3-} p_start=${20-}
}

# start PID: its start time; nothing if it is dead or a zombie.
start() { probe "$1"; case $p_state in Z | X | '') return 1 ;; esac; echo "$p_start"; }

# members GROUP START: a group without its leader still has living members, and its id was not given anew.
members() {
  probe "$1"
  [ -z "$p_start" ] || [ "$p_start" = "$2" ] || return 1
  for p_file in /proc/[0-9]*; do
    probe "${p_file#/proc/}"
    case $p_state in Z | X | '') ;; *) [ "$p_group" != "$1" ] || return 0 ;; esac
  done
  return 1
}

me() { echo "$here:$$:$(start $$):$boot"; }

# dead IDENTITY: provably. 1 = alive, 2 = nobody can tell from here.
dead() {
  that=$1; its_boot=${that##*:}; that=${that%:*}; its_start=${that##*:}; that=${that%:*}; its_pid=${that##*:}; its_host=${that%:*}
  [ "$its_host" = "$here" ] || { [ "${its_host%/*}" = "${here%/*}" ] && [ "$its_boot" != "$boot" ]; } || return 2
  [ "$its_boot" = "$boot" ] || return 0
  probe "$its_pid"
  case $p_state in Z | X | '') return 0 ;; esac
  [ "$p_start" != "$its_start" ]
}

# durable FILE: its bytes reach the disk. Old coreutils' sync takes no name, dd does.
durable() { sync "$1" 2>/dev/null || dd if=/dev/null of="$1" conv=fsync,notrunc 2>/dev/null; }

# keep NAME: stdin becomes the file NAME, whole or not at all.
keep() { cat >"$1.tmp.$$" && durable "$1.tmp.$$" && mv -f "$1.tmp.$$" "$1" && { sync "${1%/*}" 2>/dev/null || sync; }; }

# fp POINT: a test's fail point. These lines are left out unless the process that stages this file was armed. A hit is a line in the root's file `hits`.
fp() {
  case " $FP_POINTS" in *" $1="*) fp_mode=${FP_POINTS#*"$1="} ;; *" *="*) fp_mode=${FP_POINTS#*"*="} ;; *) return 0 ;; esac
  fp_mode=${fp_mode%% *} fp_root=${control%/*/*}
  ln -s "$$" "$fp_root/struck.$1.${fp_mode%@?}" 2>/dev/null || case $fp_mode in *@?) ;; *) return 0 ;; esac
  echo "$1 ${fp_mode%@?} ${control##*/} $$ $(date +%s.%N)" >>"$fp_root/hits"
  case ${fp_mode%@?} in crash) kill -9 $$ ;; exit) exit 70 ;; pause) kill -STOP $$ ;; delay:*) sleep "$(awk "BEGIN { print ${fp_mode#*:} / 1000 }" 2>/dev/null || echo 1)" ;; esac
}
