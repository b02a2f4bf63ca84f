# Unpacks an archive of t/ and end beside or in the target $1, at $2, and moves what is in t/ to its place.
# $3: "whole" if nobody else writes to the target, and a missing directory may come as it is.
# $4: an option for tar. Names as for printf %b.
LC_ALL=C; export LC_ALL
umask 077
t=$(printf '%b_' "$1"); t=${t%_}
s=$(printf '%b_' "$2"); s=${s%_}
trap 'rm -rf -- "$s"' EXIT
trap 'exit 75' HUP INT TERM PIPE
conflict() { printf '%s' "$1" >&2; exit 65; }
# Entries, from the third argument on, into directory $2, by one process.
move() {
  d=$2; shift 2
  mv -f -- "$@" "$d/" || exit 74
}
# Directory $1 of the stage into directory $2 of the target. Only the arguments are this call's own; what is to be
# moved is added to them.
merge() {
  for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    n=$2/${e##*/}
    if [ -L "$e" ] || [ ! -d "$e" ]; then
      [ -L "$e" ] || [ -e "$e" ] || continue
      # Moving onto a link to a directory would move into it, and busybox stumbles over one that leads nowhere.
      if [ -d "$n" ] || [ ! -e "$n" ]; then
        if [ -L "$n" ]; then rm -f -- "$n"; elif [ -d "$n" ]; then conflict "$n"; fi
      fi
    elif [ -L "$n" ]; then
      conflict "$n"
    elif [ -d "$n" ]; then
      continue
    elif [ -e "$n" ]; then
      conflict "$n"
    elif [ "$w" != whole ]; then
      mkdir -- "$n" 2>/dev/null || [ -d "$n" ] || conflict "$n"
      continue
    fi
    set -- "$@" "$e"
    # Shells copy the list each time.
    if [ $# -gt 100 ]; then move "$@"; set -- "$1" "$2"; fi
  done
  if [ $# -gt 2 ]; then move "$@"; fi
  # What is left are directories that are there already.
  for e in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do
    if [ -d "$e" ]; then e=${e%/}; merge "$e" "$2/${e##*/}"; fi
  done
}
w=$3
d=${s%/*}; d=${d:-/}
[ -d "$d" ] || (umask 022; mkdir -p -- "$d") || exit 74
mkdir -- "$s" || exit 74
# GNU tar gives directories their times as it goes, unless it is told that their files come later.
tar ${4:+"$4"} -xpof - -C "$s" || exit 74
# Without this the archive has broken off between two entries.
[ -e "$s/end" ] || exit 75
if [ ! -e "$s/t" ]; then exit 0; fi
if [ ! -L "$t" ] && [ ! -e "$t" ]; then
  if [ "$w" = whole ]; then mv -- "$s/t" "$t" || exit 74; exit 0; fi
  mkdir -- "$t" 2>/dev/null || [ -d "$t" ] || conflict "$t"
fi
[ -d "$t" ] || conflict "$t"
merge "$s/t" "$t"
