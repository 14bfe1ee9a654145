systemd-sysusers teredo.conf || :
mkdir -p /etc/teredo
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
