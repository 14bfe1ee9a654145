# The commands of the guide for operators, as it prints them, with the results that it promises.

# Follows commands, one on each line of a file.
walk() {
    local command commands=()
    mapfile -t commands <"$1"
    for command in "${commands[@]}"; do
        echo "# $command"
        follow "$command" || {
            detail "failed: $command"
            return 1
        }
    done
    detail "${#commands[@]} commands"
}

follow() {
    local command=$1
    command=${command//ADDRESS-OF-THE-RELAY/$RELAY_IPV6}
    command=${command//ADDRESS-OF-THE-CLIENT/$CLIENT}
    case $command in
    'sysctl --system')
        # "Remove the # before the lines that the host needs."
        sed -i 's/^#net.ipv6.conf.all.forwarding/net.ipv6.conf.all.forwarding/' /etc/sysctl.d/90-teredo.conf
        perform "$command"
        ;;
    'teredo check')
        # "Until there is nothing but ok and note."
        perform "$command"
        ;;
    'teredo status')
        wait_for "$PATIENCE" is_at_work && perform "$command"
        ;;
    'teredo peers')
        perform "$command" && teredo peers | grep --quiet ' trusted'
        ;;
    'ip -6 route add '*)
        # "On a native host."
        perform "ip netns exec host $command"
        ;;
    'ping '*)
        perform "ip netns exec host $command" | tee /dev/stderr | grep --quiet ' 0% packet loss'
        ;;
    'apt install '* | 'apt remove '* | 'apt purge '* | 'cp '* | 'systemctl '*)
        perform "$command"
        ;;
    *)
        echo "the walk does not know this command"
        return 1
        ;;
    esac
}

# Runs a line as a shell does for an operator, who answers yes.
perform() {
    bash -c "$1" < <(yes 2>/dev/null)
}
