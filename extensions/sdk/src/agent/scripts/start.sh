# Starts an agent in tmux. Arguments: the start's id, the VM's id, the program (empty: as the VM says), `keep` or `none` for its
# sessions, `prompt` or `none`, then the names of the variables it gets. Their values are in this script's environment and go
# through a named pipe: into no argument vector, no tmux, no file.
umask 077
dir=/tmp/pi-rpc
start=$1 vm=$2 program=$3 sessions=$4 prompt=$5
shift 5
fail() { printf 'failed %s\n' "$1"; exit 1; }
for tool in tmux flock mkfifo; do command -v $tool >/dev/null 2>&1 || fail "there is no $tool on the VM: an image for agents needs it"; done

# Whoever is on this VM before goes first: one agent a VM, and a copied VM may have stale sessions.
tmux kill-session -t =pi-rpc 2>/dev/null
tmux kill-session -t =pi-keeper 2>/dev/null
[ -s $dir/pid ] && ! flock -n $dir/lock true && kill -TERM -"$(cat $dir/pid)" 2>/dev/null
if [ -L $dir ] || { [ -e $dir ] && ! { [ -d $dir ] && [ -O $dir ]; }; }; then fail "$dir belongs to somebody else"; fi
mkdir -p $dir && chmod 700 $dir || fail "$dir cannot be made"
if ! flock -w 10 $dir/lock true; then
  [ -s $dir/pid ] && kill -KILL -"$(cat $dir/pid)" 2>/dev/null
  flock -w 5 $dir/lock true || fail "the agent that ran before does not end"
fi
rm -f $dir/in $dir/out $dir/err $dir/env $dir/sent $dir/next $dir/torn $dir/pid
mkfifo $dir/in $dir/env && : >$dir/out && : >$dir/err && : >$dir/sent && printf '%s\n' "$start" >$dir/start || fail "$dir cannot be written to: is the disk full?"
mkdir -p "$HOME/workspace" || fail "$HOME/workspace cannot be made"

# Who this VM is, for everything that logs in on it: before the agent starts.
profile=/etc/profile.d/reef-agent.sh
if [ -d /etc/profile.d ]; then
  if [ -f $profile ]; then cp -p $profile $profile.new; else : >$profile.new && chmod 644 $profile.new; fi
  { [ -f $profile ] && grep -v '^export VERS_VM_ID=' $profile; printf "export VERS_VM_ID='%s'\n" "$vm"; } >$profile.new && mv -f $profile.new $profile
fi
if [ -z "$program" ]; then
  program=$(unset PI_PATH PUNKIN_BIN; if [ -r $profile ]; then . $profile; fi >/dev/null 2>&1; printf '%s' "${PI_PATH:-${PUNKIN_BIN:-pi}}")
fi

cat >$dir/run <<'END'
# The agent's supervisor, in tmux. It holds the lock as long as the agent lives, and writes down how it ended.
dir=/tmp/pi-rpc
exec 9>>$dir/lock
flock 9
trap : HUP INT TERM
echo $$ >$dir/pid
if [ -r /etc/profile.d/reef-agent.sh ]; then . /etc/profile.d/reef-agent.sh; fi
. $dir/env
rm -f $dir/env
cd "$HOME/workspace" || exit
agent() {
  # A part of a pipeline has forgotten what was said above.
  trap : HUP INT TERM
  "$@" <$dir/in 2>>$dir/err 9>&-
  # A last line without an end must not swallow the record.
  printf '\n{"type":"pi_vers_exit","code":%d}\n' $?
}
if command -v stdbuf >/dev/null 2>&1; then
  # Older pis repeat the whole message with each piece of it: only the piece is kept.
  agent "$@" | (trap '' HUP INT TERM; exec stdbuf -oL sed -e '/^{"type":"message_update","assistantMessageEvent":{"type":"\(text\|thinking\|toolcall\)_delta",/s/,"partial":{.*$/}}/' >>$dir/out 9>&-)
else
  agent "$@" >>$dir/out
fi
END

set -- "$@"
names=$*
set -- "$program" --mode rpc
[ "$sessions" = none ] && set -- "$@" --no-session
[ "$prompt" = prompt ] && set -- "$@" --system-prompt "$HOME/.pi/agent/system-prompt.md"
(
  for name in $names; do unset "$name"; done
  unset LC_VERS_FRAME
  tmux new-session -d -s pi-rpc -x 200 -y 50 sh $dir/run "$@" 2>&1 &&
    tmux new-session -d -s pi-keeper sh -c 'exec sleep infinity >/tmp/pi-rpc/in' 2>&1
) || fail "tmux cannot start a session"
for name in $names; do
  eval "value=\${$name-}"
  printf "export %s='" "$name"
  # Its quotes as '\'' and nothing else; the x keeps line ends at the end.
  value=$(printf '%sx' "$value" | sed "s/'/'\\\\''/g")
  printf "%s'\n" "${value%x}"
done >$dir/env
printf 'started\n'
