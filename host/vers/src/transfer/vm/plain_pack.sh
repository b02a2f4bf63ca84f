# After each.sh, and for a VM without GNU tar: the files in directory $1 whose names come in, one a line, written as for
# printf %b. For each its number, type, mode, size, size, time, then that much data, and its number again; 0 at the end.
cd -- "$1" || exit 77
one() {
  [ "$k" = f ] || return 0
  {
    printf '%s\0f\0%o\0%s\0%s\0%s\0' "$i" "$m" "$s" "$s" "$t"
    head -c "$s" || exit 74
    printf '%s\0' "$i"
  } <"$1" || bad=1
}
set --
while read -r line; do
  case $line in *\\*) line=$(printf '%b_' "$line"); line=${line%_} ;; esac
  set -- "$@" "$line"
  if [ $# -ge 100 ]; then each "$@"; set --; fi
done
[ $# = 0 ] || each "$@"
printf '0\0'
exit "$bad"
