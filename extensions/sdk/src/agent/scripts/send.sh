# Gives the agent one command. Arguments: its id, its length in bytes; standard input: the line. Whole or not at all, one after the
# other, and once, however often it is sent.
umask 077
dir=/tmp/pi-rpc
[ -p $dir/in ] || { printf 'gone\n'; exit 0; }
exec 8>>$dir/sent
flock -w 20 8 || { printf 'busy\n'; exit 0; }
if grep -qxF -- "$1" $dir/sent; then printf 'taken\n'; exit 0; fi
cat >$dir/next || { printf 'full\n'; exit 0; }
[ "$(wc -c <$dir/next)" -eq "$2" ] || { printf 'torn\n'; exit 0; }
if flock -n $dir/lock true; then printf 'gone\n'; exit 0; fi
printf '%s\n' "$1" >&8
# Open for both ways: without a reader it would wait for one. What was torn off is ended first.
[ -e $dir/torn ] && printf '\n' 1<>$dir/in
: >$dir/torn
cat $dir/next 1<>$dir/in && rm -f $dir/torn $dir/next
printf 'taken\n'
