# Writes data to the temporary file $1, which shall become $2 (both written as for printf %b). $3: bytes that are in it,
# or "new". $4 is 1: lines "offset length" come in, each with that much data behind it, and "0 0". $5: its length when all data
# is there, $6: its size, which may end in a hole; $7: mode, $8: time.
LC_ALL=C; export LC_ALL
umask 077
s=$(printf '%b_' "$1"); s=${s%_}
t=$(printf '%b_' "$2"); t=${t%_}
if [ -d "$t" ] && [ ! -L "$t" ]; then printf '%s' "$t" >&2; exit 65; fi
# A temporary file that is incomplete because the input broke off is gone on with; nobody goes on after an error.
fail() { rm -f -- "$s"; exit 74; }
a=$3 d=${s%/*}; d=${d:-/}
[ -d "$d" ] || (umask 022; mkdir -p -- "$d") || exit 74
if [ "$a" = new ]; then
  a=0
  (set -C; : >"$s") || exit 74
fi
if [ "$4" = 1 ]; then
  while read -r o n && [ "$n" != 0 ]; do
    dd bs=65536 iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc count="$n" seek="$o" of="$s" status=none || fail
  done
else
  e=$(dd bs=65536 iflag=fullblock conv=notrunc seek="$((a / 65536))" of="$s" 2>&1) || { printf '%s' "$e" >&2; fail; }
fi
n=$(stat -c %s -- "$s") || exit 75
# It has its whole size already if this was cut off right before the end.
[ "$n" = "$5" ] || [ "$n" = "$6" ] || exit 75
[ "$n" = "$6" ] || dd bs=1 count=0 seek="$6" of="$s" 2>/dev/null </dev/null || fail
chmod "$7" "$s" || fail
touch -d "$8" -- "$s" 2>/dev/null || touch -d "${8%.*}" -- "$s" || fail
# Moving onto a link to a directory would move into it, and busybox stumbles over one that leads nowhere.
if [ -L "$t" ] && { [ -d "$t" ] || [ ! -e "$t" ]; }; then rm -f -- "$t"; fi
mv -f -- "$s" "$t" || fail
