# What is at $1, with links followed: kind, what tar is there, path.
LC_ALL=C; export LC_ALL
k=missing p=$1
if [ -d "$p" ]; then k=directory
elif [ -f "$p" ]; then k=file
elif [ -e "$p" ]; then k=other
fi
if [ "$k" != directory ] && [ -L "$p" ]; then
  p=$(readlink -f -- "$p" && echo _) || { echo 'its links lead nowhere' >&2; exit 65; }
  p=${p%?_}
fi
t=none
if command -v tar >/dev/null 2>&1; then
  t=plain
  case $(tar --version 2>/dev/null) in *'GNU tar'*) t=gnu ;; esac
fi
printf '%s\0%s\0%s\0' "$k" "$t" "$p"
