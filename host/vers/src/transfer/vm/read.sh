# File $2 (written as for printf %b) in directory $1, from byte $3 on; $4 is 1: as an archive, for its holes.
# First its type, mode, size, blocks and time.
# After each.sh, which does it where there is no GNU find.
cd -- "$1" || exit 77
p=$(printf '%b_' "$2"); p=${p%_}
exec <"$p" || exit 66
one() { printf '%s\0%o\0%s\0%s\0%s\0' "$k" "$m" "$s" "$s" "$t"; }
find -H "$p" -maxdepth 0 -printf '%y\0%m\0%s\0%b\0%T@\0' 2>/dev/null || {
  follow=-L
  each "$p"
  [ "$bad" = 0 ] || exit 66
}
if [ "$4" = 1 ]; then
  tar -b 64 --format=gnu --no-recursion --no-unquote -cShf - -- "$p" </dev/null | tail -c "+$(($3 + 1))"
else
  [ "$3" = 0 ] || dd bs=1 skip="$3" count=0 2>/dev/null || exit
  exec cat
fi
