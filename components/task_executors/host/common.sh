# Words shared by the host's helpers; put in front of each when it is staged (host_scripts.py). POSIX sh, no bashisms; LC_ALL=C so that messages can be read.
# An identity is host/pid-namespace:pid:start:boot: it names one process for ever, and can be proved dead only on the very host (and pid namespace) it names.
LC_ALL=C; export LC_ALL; umask 077
here=$(uname -n)/$(readlink /proc/self/ns/pid 2>/dev/null | tr -cd 0-9)
read -r boot </proc/sys/kernel/random/boot_id || boot=unknown

# start PID: its start time in clock ticks since boot; empty if it is dead or a zombie.
start() {
  line=
  { read -r line <"/proc/$1/stat"; } 2>/dev/null
  line=${line##*) }
  case $line in Z* | X* | '') return 1 ;; esac
  set -f; set -- $line; set +f
  echo "${20}"
}

me() { echo "$here:$$:$(start $$):$boot"; }

# dead IDENTITY: provably. 1 = alive, 2 = nobody can tell from here.
dead() {
  that=$1; its_boot=${that##*:}; that=${that%:*}; its_start=${that##*:}; that=${that%:*}; its_pid=${that##*:}; its_host=${that%:*}
  [ "$its_host" = "$here" ] || { [ "${its_host%/*}" = "${here%/*}" ] && [ "$its_boot" != "$boot" ]; } || return 2
  [ "$its_boot" = "$boot" ] || return 0
  [ "$(start "$its_pid")" != "$its_start" ]
}

# durable FILE: its bytes reach the disk. Old coreutils' sync takes no name, dd does.
durable() { sync "$1" 2>/dev/null || dd if=/dev/null of="$1" conv=fsync,notrunc 2>/dev/null; }

# keep NAME: stdin becomes the file NAME, whole or not at all.
keep() { cat >"$1.tmp.$$" && durable "$1.tmp.$$" && mv -f "$1.tmp.$$" "$1" && { sync "${1%/*}" 2>/dev/null || sync; }; }

# fp POINT: a test's fail point. The lines that call it are left out unless the process that stages this file was armed.
fp() { case " $FP_POINTS " in *" $1 "*) mkdir "$FP_HITS/$1" 2>/dev/null && kill -9 $$ ;; esac; }
