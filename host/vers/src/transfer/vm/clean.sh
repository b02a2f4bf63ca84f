# Removes what the arguments name (written as for printf %b).
LC_ALL=C; export LC_ALL
for e; do
  s=$(printf '%b_' "$e"); s=${s%_}
  case ${s##*/} in .vers-*.tmp) rm -rf -- "$s" ;; esac
done
