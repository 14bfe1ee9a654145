# Tries the package on this system. Each step leaves its output in $OUT/STEP.log and prints a line with its name, its
# result and details. It is called again after it has restarted the machine.
set -o pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C RUST_BACKTRACE=0
THIS=$1
NEXT=$2
STATE=/var/tmp/system
TIMES=3
# Seconds until something has happened, on an emulated machine that has others beside it.
PATIENCE=300
# Of systemd-analyze security.
MOST_EXPOSURE=2.5
CONFIGURATION=/etc/teredo/teredo.toml

# The lines for the host, from within a step.
exec 3>&1

. ./world.sh
. ./walk.sh
. ./traffic.sh
. ./traces.sh

step() {
    local result=ok
    STEP=$1
    shift
    DETAIL=$(mktemp)
    "$@" >"$OUT/$STEP.log" 2>&1 || result=failed
    echo "step $STEP $result $(paste --serial --delimiters=' ' "$DETAIL")"
    [ $result = ok ] || {
        tail --lines=20 "$OUT/$STEP.log"
        journalctl --quiet --no-pager --unit=teredo --lines=20
        return 1
    }
}

# Adds to the line of the step.
detail() {
    echo "$*" >>"$DETAIL"
}

figure() {
    echo "figure $1 $2"
}

main_pid() {
    systemctl show --property=MainPID --value teredo
}

stored() {
    systemctl show --property=NFileDescriptorStore --value teredo
}

is_at_work() {
    teredo status 2>/dev/null | head --lines=1 | grep --quiet '^ok: relay at work'
}

# Replaces the process with a command; the next one has to be at work, with all descriptors stored.
replace() {
    local before
    before=$(main_pid)
    "$@" || return
    wait_for "$PATIENCE" is_other_than "$before" && wait_for "$PATIENCE" is_at_work || return
    wait_for "$PATIENCE" has_stored "$(cat $STATE/stored)"
}

is_other_than() {
    local now
    now=$(main_pid)
    [ "$now" != 0 ] && [ "$now" != "$1" ]
}

has_stored() {
    [ "$(stored)" -ge "$1" ]
}

status_field() {
    sed -n "s/^$2:[[:space:]]*//p" /proc/"$1"/status
}

rights() {
    local pid set user
    pid=$(main_pid)
    grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp)' /proc/"$pid"/status
    user=$(id --user teredo)
    [ "$(status_field "$pid" Uid)" = "$(printf '%s\t%s\t%s\t%s' "$user" "$user" "$user" "$user")" ] || return
    [ "$(status_field "$pid" NoNewPrivs)" = 1 ] && [ "$(status_field "$pid" Seccomp)" = 2 ] || return
    # CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF. The bounding set is the unit's.
    for set in CapPrm CapEff; do
        [ "$(status_field "$pid" $set)" = 000000c000003000 ] || return
    done
    [ "$(status_field "$pid" CapAmb)" = 0000000000000000 ] || return
    detail "user teredo, 4 capabilities, a seccomp filter"
}

# What the daemon sees of the host.
sandbox() {
    local pid inside
    pid=$(main_pid)
    inside="nsenter --target $pid --mount --"
    touch /home/secret
    for place in /usr /etc /boot /var/lib /sys/kernel; do
        ! $inside touch $place/planted || return
    done
    [ -z "$($inside ls -A /home 2>/dev/null)" ] || return
    $inside test ! -e /dev/vda -a -c /dev/net/tun || return
    rm /home/secret
    detail "files read-only, no home directories, no disks"
}

security() {
    systemd-analyze security --no-pager teredo.service
    local exposure
    exposure=$(systemd-analyze security --no-pager teredo.service |
        sed -n 's/.*Overall exposure level for teredo.service: \([0-9.]*\).*/\1/p')
    detail "exposure $exposure"
    awk "BEGIN { exit !($exposure > 0 && $exposure < $MOST_EXPOSURE) }"
}

store() {
    stored >$STATE/stored
    detail "$(stored) descriptors"
    [ "$(stored)" -gt 0 ]
}

restart() {
    replace systemctl restart teredo
}

killed() {
    local pid
    pid=$(main_pid)
    replace kill -KILL "$pid"
}

reload() {
    echo 'max-peers = 1000' >>$CONFIGURATION
    replace systemctl reload teredo && teredo status --json | grep --quiet '"maximum": *1000\b' || return
    # What the next process tells systemd before it is the main one counts.
    ! journalctl --quiet --no-pager --unit=teredo | grep 'reception only permitted'
}

# A process that took over has to report to the watchdog, or systemd ends it.
watched() {
    local process last
    process=$(main_pid)
    last=$(last_report)
    [ -n "$last" ] && wait_for "$PATIENCE" reported "$last" && [ "$(main_pid)" = "$process" ]
}

reported() {
    [ "$(last_report)" != "$1" ]
}

last_report() {
    systemctl show --property=WatchdogTimestampMonotonic --value teredo
}

refused_reload() {
    local before result=0
    before=$(main_pid)
    cp $CONFIGURATION $STATE/good.toml
    echo 'nonsense = true' >>$CONFIGURATION
    if systemctl reload teredo; then
        echo "a wrong configuration was accepted"
        result=1
    fi
    # Commands read the file, too.
    cp $STATE/good.toml $CONFIGURATION
    [ "$(main_pid)" = "$before" ] && is_at_work && return $result
}

# A repository with one version, as apt's only source.
publish() {
    local file=teredo_$1_amd64.deb repository=$STATE/repository
    rm -rf $repository
    mkdir -p $repository
    cp "$file" $repository
    {
        # An empty line would end the entry.
        dpkg-deb --field "$file" | sed '/^$/d'
        echo "Filename: ./$file"
        echo "Size: $(stat --format=%s "$file")"
        echo "SHA256: $(sha256sum "$file" | cut --delimiter=' ' --fields=1)"
    } >$repository/Packages
    rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
    echo "deb [trusted=yes] file:$repository ./" >/etc/apt/sources.list
    apt-get --quiet update
}

installed() {
    dpkg-query --show --showformat='${Version}' teredo
}

upgrade() {
    replace apt-get --quiet --yes upgrade && [ "$(installed)" = "$NEXT" ]
}

roll_back() {
    replace follow "$(cat walk-roll-back)" && [ "$(installed)" = "$THIS" ]
}

upgrade_by_hand() {
    replace follow "$(cat walk-upgrade)" && [ "$(installed)" = "$NEXT" ]
}

# The daemon forwards alone, and stores less.
in_userspace() {
    echo 1 >$STATE/stored
    echo 'xdp.mode = "off"' >>$CONFIGURATION
    replace systemctl reload teredo && ! has_program && store
}

# It has given up the rights for that, and says so; a restart has them.
on_fast_path() {
    sed -i '/^xdp.mode/d' $CONFIGURATION
    ! systemctl reload teredo || return
    journalctl --quiet --no-pager --unit=teredo | grep --quiet 'this needs a restart' || return
    replace systemctl restart teredo && has_program && store
}

stop() {
    systemctl stop teredo && [ "$(stored)" = 0 ] && has_no_objects
}

# systemd has noticed the end of each process, and let it take its time.
supervised() {
    ! journalctl --quiet --no-pager --unit=teredo |
        grep --extended-regexp 'not our child|left-over|with signal SIGKILL|remains running'
}

# The machine starts without any network; interfaces, addresses and routes come when the daemon runs.
late() {
    local start=$SECONDS
    [ "$(systemctl is-active teredo)" = active ] || return
    teredo status
    ! is_at_work || return
    detail "before the network: $(teredo status | head --lines=1);"
    make_world && wait_for "$PATIENCE" is_at_work || return
    detail "at work $((SECONDS - start)) s after its interfaces began to come"
}

again() {
    populate && ip -n host route add 2001::/32 via $RELAY_IPV6 || return
    wait_for "$PATIENCE" ip netns exec host ping -c 1 -W 5 "$CLIENT" && under_traffic 0 pause
}

first_boot() {
    mkdir -p $STATE
    # The image leaves out documentation, which an operator's system has.
    rm -f /etc/dpkg/dpkg.cfg.d/*mmdebstrap*
    dpkg-deb --fsys-tarfile teredo_"$THIS"_amd64.deb | tar -xO ./usr/bin/teredo >teredo
    chmod 755 teredo
    figure kernel "$(uname --kernel-release)"
    figure systemd "$(systemctl --version | sed -n '1s/^[^(]*(\(.*\)).*/\1/p')"
    make_world
    populate || {
        echo "step walk failed the client has no address"
        tail --lines=30 "$OUT/server.log" "$OUT/client.log"
        exit 1
    }
    inventory | sort >$STATE/before
    bpf_objects | sort --unique >$STATE/bpf
    # Without the package there is nothing to try.
    step walk walk walk || exit
    step rights rights
    step sandbox sandbox
    step security security
    step store store
    figure path "$(teredo status --json | grep --only-matching '"mode": *"[a-z]*"' | cut --delimiter='"' --fields=4 |
        sort --unique | paste --serial --delimiters=' ')"
    step quiet under_traffic 0 pause
    step restart under_traffic "$TIMES" repeat restart
    step kill under_traffic "$TIMES" repeat killed
    step reload under_traffic 1 reload
    step watched watched
    step refused under_traffic 0 refused_reload
    publish "$NEXT" >"$OUT/publish.log" 2>&1
    step upgrade under_traffic 1 upgrade
    step roll-back under_traffic 1 roll_back
    step upgrade-by-hand under_traffic 1 upgrade_by_hand
    step userspace in_userspace
    step userspace-restart under_traffic "$TIMES" repeat restart
    step userspace-kill under_traffic "$TIMES" repeat killed
    step fast-path on_fast_path
    step stop stop
    step supervised supervised
    touch $STATE/booted
    # The end of this command must not end the machine.
    mkdir -p /run/systemd/system/vm.service.d
    printf '[Unit]\nSuccessAction=none\nFailureAction=none\n' >/run/systemd/system/vm.service.d/reboot.conf
    systemctl daemon-reload
    systemctl reboot
    sleep infinity
}

second_boot() {
    step late late
    step again again
    step remove remove
    step purge purge
    journalctl --quiet --no-pager --unit=teredo >"$OUT/journal.log"
}

if [ -e $STATE/booted ]; then
    second_boot
else
    first_boot
fi
