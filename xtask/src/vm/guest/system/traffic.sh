# Packets of a trusted peer in both directions, counted, while something happens.

# Calls a function under traffic, with the number of times that it replaces the process. The step has failed if a packet
# is lost or repeated; a crash may take packets with it that the process holds: one, or several without the fast path, as
# they are read in batches and each takes its time where that is emulated. One may be overtaken each time that the
# process is replaced, which is slower than the time between two packets where it is emulated; none otherwise.
under_traffic() {
    local times=$1 result=0 counts
    counts=$(mktemp)
    shift
    # The function runs in a shell of its own.
    { declare -f && declare -p THIS NEXT STATE TIMES PATIENCE CONFIGURATION RELAY_IPV6 CLIENT DETAIL; } >$STATE/functions
    ./streams --stream "to-client,host,client,$CLIENT" --stream "to-host,client,host,$HOST" \
        --tcp "both,host,client,$CLIENT" -- bash -c ". $STATE/functions; $*" >"$counts" || result=1
    cat "$counts"
    # Where packets were lost, if they were.
    teredo status
    ./teredo status --config $WORLD/client.toml
    sed -n "s/^loss /loss $STEP $times /p" "$counts" >&3
    detail "$(sed -n 's/^connections \(.*\)/\1 connections/p' "$counts")"
    [ $result = 0 ] || return
    is_harmless "$counts" "$times" "$*"
}

is_harmless() {
    local may_lose=0
    case $STEP in
        kill) may_lose=$2 ;;
        userspace-kill) may_lose=$((4 * $2)) ;;
    esac
    awk -v may_lose=$may_lose -v times="$2" '/^loss / { lines++; if ($4 > may_lose || $5 || $6 > times) bad = 1 }
        END { exit bad || lines != 2 }' "$1"
}

repeat() {
    local time
    for ((time = 0; time < TIMES; time++)); do
        "$@" || return
        sleep 1
    done
}

pause() {
    sleep 5
}
