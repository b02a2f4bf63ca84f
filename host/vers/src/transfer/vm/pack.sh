# An archive of the files in directory $1 whose names come in.
LC_ALL=C; export LC_ALL
cd -- "$1" || exit 77
exec tar -b 64 --format=gnu --hard-dereference --no-recursion --no-unquote --null -cSf - -T -
