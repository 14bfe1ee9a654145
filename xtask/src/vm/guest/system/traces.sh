# What a package and its daemon leave on a system.

# Whether the program is attached to an interface.
has_program() {
    ip link show | grep --quiet 'xdp'
}

# No interface, route, program, map or link.
has_no_objects() {
    local traces
    traces=$({
        ip -oneline link show | grep -E '\bteredo\b|xdp'
        ip -oneline route show table all | grep -E '\bteredo\b'
        ip -6 -oneline route show table all | grep -E '\bteredo\b|2001::/32'
        find /sys/fs/bpf -mindepth 1 -name '*teredo*'
        ls -d /run/teredo 2>/dev/null
        bpf_objects | sort --unique | comm -13 $STATE/bpf -
        pgrep --exact --ns 1 --nslist net --list-name teredo
    })
    echo "$traces"
    [ -z "$traces" ]
}

# Programs, maps and links of the kernel. Those of systemd, which restrain units, come and go.
bpf_objects() {
    {
        bpftool prog show | sed -n 's/^[0-9]*: \([a-z_]*\) *name \([^ ]*\).*/program \1 \2/p'
        bpftool map show | sed -n 's/^[0-9]*: \([a-z_]*\) *name \([^ ]*\).*/map \1 \2/p'
        bpftool link show | sed -n 's/^[0-9]*: \([a-z_]*\).*/link \1/p'
    } | grep --invert-match ' cgroup_\| cgroup$\| sd_'
}

# Everything that may change: files, users, interfaces, settings of the network, units.
inventory() {
    find /etc /usr /var /opt /srv /root /run -xdev \
        -path /var/lib/dpkg -prune -o -path /var/lib/apt -prune -o -path /var/cache -prune -o \
        -path /var/log -prune -o -path /var/tmp -prune -o -path /var/lib/systemd -prune -o \
        -path /run/systemd -prune -o -path /run/udev -prune -o -path /run/log -prune -o \
        -path /run/world -prune -o -path /run/netns -prune -o \
        -path /etc/apt -prune -o -path '/etc/*-' -prune -o -path /etc/.pwd.lock -prune -o \
        -print | sed 's/^/file /'
    sed 's/:.*//; s/^/user /' /etc/passwd
    sed 's/:.*//; s/^/group /' /etc/group
    ip -oneline link show | sed 's/^[0-9]*: \([^:@]*\).*/link \1/'
    sysctl --all 2>/dev/null | grep -E '^net\.(ipv4|ipv6|core)' | sed 's/^/setting /'
    systemctl list-unit-files --no-legend --no-pager | sed 's/ .*//; s/^/unit /'
}

# The traces of the removed package: after `apt remove` there may be the configuration, state and user.
remove() {
    is_at_work || return
    follow "$(cat walk-remove)" && has_no_objects || return
    # Debian masks the unit of a package that has left its configuration.
    [ "$(systemctl is-active teredo)" = inactive ] || return
    [ ! -e /usr/bin/teredo ] && [ -e $CONFIGURATION ] || return
    detail "configuration and user stay"
}

purge() {
    follow "$(cat walk-purge)" && has_no_objects || return
    # What the operator did according to the guide.
    rm /etc/sysctl.d/90-teredo.conf
    sysctl --quiet --write net.ipv6.conf.all.forwarding=0
    inventory | sort >$STATE/after
    diff $STATE/before $STATE/after || return
    detail "files, users, groups, interfaces, settings, units as before; no program, map or link"
}
