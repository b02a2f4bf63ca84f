# How long the temporary file $1 is; if there is none, size and time of $2. Names as for printf %b.
LC_ALL=C; export LC_ALL
s=$(printf '%b_' "$1"); s=${s%_}
t=$(printf '%b_' "$2"); t=${t%_}
if [ -f "$s" ]; then stat -c 'at %s 0' -- "$s"
elif [ -f "$t" ] && [ ! -L "$t" ]; then stat -c 'done %s %Y' -- "$t"
else echo 'none 0 0'
fi
