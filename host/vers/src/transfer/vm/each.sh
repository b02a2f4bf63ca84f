# For each argument that is there, calls `one` with its name; i: its number, from 1 on; k: kind, m: mode (decimal), s: size,
# t: time. Sets bad if there was one that could not be looked at. follow: an option for stat. Needs no more than
# a POSIX shell and a stat that knows -c, as busybox and GNU's coreutils have it.
LC_ALL=C; export LC_ALL
i=0 bad=0 follow=
each() {
  # One process for all of them, unless one has just gone.
  if all=$(stat $follow -c '%f %s %Y %y' -- "$@" 2>/dev/null); then
    while read -r m s t day clock zone; do
      case $clock in *.*) t=$t.${clock#*.} ;; esac
      case $((0x$m >> 12)) in 4) k=d ;; 8) k=f ;; 10) k=l ;; *) k=o ;; esac
      m=$((0x$m & 4095))
      i=$((i + 1))
      one "$1"
      shift
    done <<END
$all
END
  elif [ $# -gt 1 ]; then
    for a; do each "$a"; done
  else
    i=$((i + 1)) bad=1
    stat $follow -c %f -- "$1" >/dev/null
  fi
}
