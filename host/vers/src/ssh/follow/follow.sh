# What comes as variables: the path; the offset to begin at, or "end"; the size that the file must have at least; the
# identity of the file to go on with, or nothing; the mark. They are not for the programs below.
p=$VERS_FOLLOW_PATH n=$VERS_FOLLOW_START l=$VERS_FOLLOW_LEAST i=$VERS_FOLLOW_FILE m=$VERS_FOLLOW_MARK
unset VERS_FOLLOW_PATH VERS_FOLLOW_START VERS_FOLLOW_LEAST VERS_FOLLOW_FILE VERS_FOLLOW_MARK
exec 2>/dev/null
# A relative path may look like an option.
case $p in /*) ;; *) p=./$p ;; esac
open='' waiting='' moved=''
say() { moved=1; printf '\036%s %s\n' "$m" "$1"; }
# Ends all of this, also the tail: they are one process group.
give_up() { kill 0; exit 3; }
# The offset up to which the open file has been read: f. Programs share it with this shell.
position() { read -r _ f </proc/self/fdinfo/3; }
# What the open file is (inode numbers are given anew; the time of birth, where there is one, is not) and its size.
identify() {
  s=$(stat -L -c '%d:%i:%.9W %s' /proc/self/fd/3) || give_up
  id=${s% *} s=${s##* }
}
# Begins with the open file at offset $1, if it is at least $2 long.
begin() {
  if [ "$1" = end ]; then say "file $id $s"; set -- "$s" "$s"; else say "file $id $1"; fi
  if [ "$s" -lt "$2" ]; then
    say truncated
  elif [ "$1" -gt 0 ]; then
    dd bs=1 skip="$1" count=0 <&3 >/dev/null
  fi
  position
  open=1
}
# Opens what the path leads to.
enter() {
  [ -e "$p" ] || return 1
  [ -f "$p" ] || { say irregular; give_up; }
  exec 3<"$p" || give_up
  identify
}
# The first file: the one that was followed before, under whatever name of the directory it has now.
first() {
  if [ -z "$i" ]; then
    if enter; then begin "$n" "$l"; return; fi
    if [ -z "$waiting" ]; then say waiting; waiting=1; fi
    if [ "$n" = end ]; then n=0; fi
    return 1
  fi
  if enter && [ "$id" = "$i" ]; then begin "$n" "$l"; return; fi
  d=${p%/*} t=${i#*:}
  t=$(find "${d:-/}/" -maxdepth 1 -type f -inum "${t%%:*}" -print | head -n 1)
  if [ -f "$t" ]; then
    exec 3<"$t" || give_up
    identify
    if [ "$id" = "$i" ]; then begin "$n" "$l"; return; fi
  fi
  say lost
  give_up
}
# Hands over what is new, of the open file and of those that replaced it.
look() {
  [ "$open" ] || first || return 0
  while :; do
    # In this order: once the path leads elsewhere, what the old file holds is all of it.
    other=''
    if [ -e "$p" ] && ! [ "$p" -ef /proc/self/fd/3 ]; then other=1; fi
    b=$f
    cat <&3
    position
    if [ "$f" != "$b" ]; then
      moved=1
    else
      identify
      if [ "$s" -lt "$f" ]; then
        say truncated
        exec 3</proc/self/fd/3
        position
        continue
      fi
    fi
    [ "$other" ] || return 0
    say replaced
    until enter; do [ -e "$p" ] || { open='' i='' n=0 l=0; return 0; }; done
    begin 0 0
  done
}
# Waits for tail. A tail that comes late, finds the file as short as it last saw it, and is silent about what was written
# and truncated away meanwhile: so after a look that found something, there is another one in a second.
wake() {
  case $(${moved:+timeout $foreground 1} dd bs=64k count=1 2>&1 >/dev/null) in 0+0*) return 1 ;; esac
  moved=''
}
# tail only wakes this shell: by its heading once it watches, then with whatever was appended, and with its notices
# that the file was truncated, went, came, or was replaced. What it prints is thrown away.
# Where the system cannot wake it (overlayfs) it looks ten times a second, if it can: busybox's takes no fraction, and has no --version.
if tail --version >/dev/null </dev/null; then often='-s 0.1'; else often=''; fi
tail -v -c 0 $often -F "$p" 2>&1 </dev/null | {
  look
  # Else it leaves this process group; busybox's does not, and has no such option.
  if timeout --foreground 1 true; then foreground=--foreground; else foreground=''; fi
  while wake; do look; done
  give_up
} &
# The input ends with the connection, even with one that breaks before anybody there knows of this command.
read -r _
give_up
