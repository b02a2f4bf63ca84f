# Modes and times of directories in $1 (written as for printf %b): an archive of nothing else comes in.
LC_ALL=C; export LC_ALL
t=$(printf '%b_' "$1"); t=${t%_}
cd -- "$t" && exec tar -xpof -
