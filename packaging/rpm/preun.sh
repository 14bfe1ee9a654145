# The last version goes: 0 others remain.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now teredo.service || :
fi
