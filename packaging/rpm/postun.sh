if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # An upgrade: the new version is there already, and takes over from the old one.
    if [ "$1" -ge 1 ]; then
        systemctl try-restart teredo.service || :
    fi
fi
if [ "$1" -eq 0 ]; then
    # Configuration and keys stay, as do the state of clients and the user.
    rmdir /etc/teredo 2>/dev/null || :
fi
