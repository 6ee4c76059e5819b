# prepare ROOT WORK_DIR SCRIPT...: the work directory, private and writable, on a disk that takes a byte. 96: a script is missing. May be repeated.
root=$1 work=$2; shift 2
for script; do [ -r "$script" ] || exit 96; done
mkdir -p "$root/airavata" "$root/.airavata/jobs" && { [ -d "$work" ] && [ ! -h "$work" ] || mkdir -m 700 "$work"; } && chmod 700 "$work" || exit 1
[ "$(cd -P "$work" && pwd -P)" = "$(cd -P "$root/airavata" && pwd -P)/${work##*/}" ] || { echo "$work leads elsewhere" >&2; exit 1; }
printf '%65536s' probe | keep "$root/.airavata/probe.$$" && rm -f "$root/.airavata/probe.$$"
