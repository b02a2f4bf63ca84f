# `kill -SIGNAL -GROUP` is the one form that bash, dash and busybox all take.
trap '' HUP INT QUIT TERM PIPE
# What is watched, as " number=group number=group "; the group is missing until it is known.
w=' '
nap() { sleep 0.02 2>/dev/null || sleep 1; }
# Whether the group $1 has a process that is no zombie.
group() {
  kill -0 "-$1" 2>/dev/null || return 1
  for q in /proc/[0-9]*/stat; do
    { read -r line <"$q"; } 2>/dev/null || continue
    case $line in *') Z '* | *') X '*) continue ;; *') '?' '*" $1 "*) ;; *) continue ;; esac
    line=${line##*') '}; line=${line#* }; line=${line#* }
    [ "${line%% *}" = "$1" ] && return 0
  done
  return 1
}
# Whether process $1 is there and no zombie.
alive() {
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  case $line in *') Z '* | *') X '*) return 1 ;; esac
}
# The processes that carry the mark of command $1: m.
marked() {
  m=
  for q in $(grep -lsF "VERS_EXEC_ID=$c.$1." /proc/[0-9]*/environ 2>/dev/null); do
    q=${q#/proc/}; q=${q%/environ}; kill -0 "$q" 2>/dev/null && m="$m $q"
  done
}
# Stops command $1 of group $2 (or -), $3 naps between TERM and KILL. r: signal it took, x: escaped, l: left.
stop() {
  r=- x=0 l=0 i=$3
  if [ "$2" != - ] && kill -TERM "-$2" 2>/dev/null; then
    r=TERM
    kill -CONT "-$2" 2>/dev/null
    while group "$2" && [ "$i" -gt 0 ]; do nap; i=$((i - 1)); done
    if group "$2"; then
      r=KILL
      kill -KILL "-$2" 2>/dev/null
      i=100
      while group "$2" && [ "$i" -gt 0 ]; do nap; i=$((i - 1)); done
    fi
  fi
  i=50
  while marked "$1"; [ -n "$m" ] && [ "$i" -gt 0 ]; do
    if [ "$x" = 0 ]; then for q in $m; do x=$((x + 1)); done; fi
    kill -KILL $m 2>/dev/null
    nap; i=$((i - 1))
  done
  for q in $m; do l=$((l + 1)); done
  if [ "$2" != - ] && group "$2"; then l=$((l + 1)); fi
}
forget() {
  case $w in *" $1="*) t=${w#*" $1="}; w="${w%%" $1="*} ${t#* }" ;; esac
}
if [ "$LC_VERS_PROBE" ]; then echo '0 variables'; unset LC_VERS_PROBE; fi
while IFS=' ' read -r op n g a s; do
  case $op in
    +) w="$w$n= " ;;
    =) forget "$n"; w="$w$n=$g " ;;
    -) forget "$n" ;;
    s) if kill "-$a" "-$g" 2>/dev/null; then echo "$s ok"; else echo "$s gone"; fi ;;
    x) (stop "$n" "$g" "$a"; echo "$s $r $x $l") </dev/null 2>/dev/null & ;;
  esac
done
# Nobody is left who could stop them.
for e in $w; do
  n=${e%%=*} g=${e#*=}
  # It has ended by itself, and the word of it was lost: what it has left in the background stays.
  if [ "$g" ] && ! alive "$g"; then continue; fi
  (stop "$n" "${g:--}" "$naps") </dev/null >/dev/null 2>&1 &
done
wait
