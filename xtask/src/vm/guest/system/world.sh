# The world around a relay, which is this machine: an IPv4 internet with a server and a client, and a native host
# behind the relay. Each is a network namespace.
#
#   client eth0 ── internet ── eth0 server eth1 ── eth1 host
#                     │                             eth0
#                    eth0                            │
#                  the relay ────── eth1 ────────────┘

RELAY_IPV6=2001:db8:7::1
HOST=2001:db8:7::2
# A daemon of the package that is not the one under test.
WORLD=/run/world

# Runs a command in a namespace; the machine's own is called 1.
within() {
    local namespace=$1
    shift
    if [ "$namespace" = 1 ]; then
        "$@"
    else
        ip netns exec "$namespace" "$@"
    fi
}

# Lays a cable between two namespaces. Checksums are complete on it, since XDP forwards them as they are. One core
# takes the packets, or those of a sender that changes cores would overtake each other.
cable() {
    within "$1" ip link add "$2" type veth peer name "$4" netns "$3"
    while [ $# -gt 0 ]; do
        within "$1" ethtool -K "$2" tx off >/dev/null
        within "$1" sh -c "echo 1 >/sys/class/net/$2/queues/rx-0/rps_cpus"
        within "$1" ip link set "$2" up
        shift 2
    done
}

make_world() {
    local name
    modprobe --all tun veth
    # A core that the emulator leaves waiting loses nothing.
    sysctl --quiet --write net.core.netdev_max_backlog=100000
    for name in internet server client host; do
        ip netns add $name
        ip -n $name link set lo up
    done
    ip netns exec internet sysctl --quiet --write net.ipv4.ip_forward=1

    cable 1 eth0 internet relay
    cable server eth0 internet server
    cable client eth0 internet client
    cable 1 eth1 host eth0
    cable server eth1 host eth1

    ip -n internet address add 20.0.1.254/24 dev relay
    ip -n internet address add 20.0.2.254/24 dev server
    ip -n internet address add 20.0.3.254/24 dev client
    ip -n server address add 20.0.2.1/24 dev eth0
    ip -n server address add 20.0.2.2/24 dev eth0
    ip -n server route add default via 20.0.2.254
    ip -n client address add 20.0.3.1/24 dev eth0
    ip -n client route add default via 20.0.3.254
    ip -n host address add $HOST/64 dev eth0 nodad
    ip -n host address add 2001:db8:8::2/64 dev eth1 nodad
    ip -n server address add 2001:db8:8::1/64 dev eth1 nodad
    ip -n server route add default via 2001:db8:8::2
    # Last, as DHCP and router advertisements come after the link.
    ip address add 20.0.1.1/24 dev eth0
    ip route add default via 20.0.1.254
    ip address add $RELAY_IPV6/64 dev eth1 nodad
    ip route add default via $HOST
}

# Starts the daemon of a namespace: its name, and its configuration.
start_in() {
    mkdir -p $WORLD
    printf '[node]\napi = "unix:%s/%s.sock"\n%s\n' $WORLD "$1" "$2" >$WORLD/"$1".toml
    ip netns exec "$1" ./teredo run --config $WORLD/"$1".toml >>"$OUT/$1.log" 2>&1 &
    echo $! >$WORLD/"$1".pid
}

# Starts server and client; CLIENT is the client's address.
populate() {
    start_in server '[server]
ipv4 = ["20.0.2.1", "20.0.2.2"]
xdp.mode = "off"'
    start_in client '[client]
server = "20.0.2.1"
port-mapping = false
local-discovery = false'
    wait_for "$PATIENCE" find_client
}

find_client() {
    CLIENT=$(ip -n client -6 -brief address show dev teredo 2>/dev/null | grep --only-matching '2001:0:[0-9a-f:]*') &&
        [ -n "$CLIENT" ] && export CLIENT
}

end_world() {
    local name
    for name in client server; do
        kill "$(cat $WORLD/$name.pid)" && wait "$(cat $WORLD/$name.pid)"
    done
    for name in internet server client host; do
        ip netns delete $name
    done
    rm -r $WORLD
}

# Calls a command once a second until it succeeds, for this number of seconds at most.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || {
            echo "it takes too long: $*"
            return 1
        }
        sleep 0.5
    done
}
