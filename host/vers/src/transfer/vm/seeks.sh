# Whether dd writes at any offset.
exec dd if=/dev/null of=/dev/null count=1 seek=1 iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc 2>/dev/null
