# Ends the agent: it is asked first.
dir=/tmp/pi-rpc
tmux kill-session -t =pi-rpc 2>/dev/null
# Where hanging up is ignored, this is not.
[ -s $dir/pid ] && ! flock -n $dir/lock true 2>/dev/null && kill -TERM -"$(cat $dir/pid)" 2>/dev/null
if ! flock -w 5 $dir/lock true 2>/dev/null; then
  [ -s $dir/pid ] && kill -KILL -"$(cat $dir/pid)" 2>/dev/null
  flock -w 5 $dir/lock true 2>/dev/null || { printf 'alive\n'; exit 0; }
fi
tmux kill-session -t =pi-keeper 2>/dev/null
rm -f $dir/in $dir/env $dir/next
printf 'ended\n'
