# After each.sh, and for a VM without GNU find: what list.sh prints, but without holes.
stat -c %f / >/dev/null 2>&1 || exit 69
one() {
  l=
  if [ "$k" = l ]; then
    l=$(readlink -- "$1" && echo _) || {
      bad=1
      [ ! -L "$1" ] || printf '%s: its link cannot be read\n' "$1" >&2
      return 0
    }
    l=${l%?_}
  fi
  [ -z "$follow" ] || set -- .
  p=${1#.}
  printf '%s\0%o\0%s\0%s\0%s\0%s\0%s\0' "$k" "$m" "$s" "$s" "$t" "${p#/}" "$l"
}
# What is in directory $1. Only the arguments are this call's own.
walk() {
  # A pattern does not say that it could not read the directory.
  ls -- "$1" >/dev/null || bad=1
  for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -d "$e" ] && [ ! -L "$e" ]; then continue; fi
    # Patterns that match nothing stay as they are.
    case ${e##*/} in '*' | '.[!.]*' | '..?*') [ -e "$e" ] || [ -L "$e" ] || continue ;; esac
    set -- "$@" "$e"
    # Shells copy the list each time.
    if [ $# -gt 100 ]; then d=$1; shift; each "$@"; set -- "$d"; fi
  done
  if [ $# -gt 1 ]; then d=$1; shift; each "$@"; set -- "$d"; fi
  for e in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do
    e=${e%/}
    if [ -d "$e" ] && [ ! -L "$e" ]; then each "$e"; walk "$e"; fi
  done
}
if [ -d "$1" ]; then
  cd -- "$1" || exit 77
  each .
  walk .
else
  follow=-L
  each "$1"
fi
exit "$bad"
