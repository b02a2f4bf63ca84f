# How it is with the agent on this VM.
dir=/tmp/pi-rpc
[ -s $dir/start ] && [ -f $dir/out ] || { printf 'none\n'; exit 0; }
printf 'start %s\nsize %s\n' "$(cat $dir/start)" "$(wc -c <$dir/out)"
if flock -n $dir/lock true 2>/dev/null; then printf 'ended\n'; else printf 'alive\n'; fi
