# Waits until the agent is no more, whatever has ended it.
flock -s /tmp/pi-rpc/lock true
printf 'ended\n'
