# clean ROOT WORK_DIR: remove the work directory, if it really lies where it must. Links inside are removed, not followed. May be repeated.
root=$1 work=$2
[ -e "$work" ] || [ -h "$work" ] || exit 0
[ ! -h "$work" ] && [ "$(cd -P "$work" && pwd -P)" = "$(cd -P "$root/airavata" && pwd -P)/${work##*/}" ] || { echo "$work leads elsewhere" >&2; exit 1; }
rm -rf -- "$work"
