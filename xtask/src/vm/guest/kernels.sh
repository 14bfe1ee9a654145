# Tries the daemon on this kernel, step by step. Each step leaves its output in $OUT/STEP.log, and a
# line with its name, its result and its seconds in $OUT/steps.
set -o pipefail
export TEREDO_BIN=$PWD/teredo RUST_BACKTRACE=0
# Devices that not every kernel has compiled in; a step says what it misses.
modprobe --all --quiet tun veth bridge 8021q bonding vrf

step() {
    local name=$1 result=ok start=$SECONDS
    shift
    "$@" >"$OUT/$name.log" 2>&1 || result=failed
    echo "$name $result $((SECONDS - start))" | tee --append "$OUT/steps"
    [ $result = ok ] || tail --lines=20 "$OUT/$name.log"
}

tests() {
    local test
    for test in "$@"; do
        "./$test" --test-threads=2 || return
    done
}

scene() {
    ./scene --seconds 6 "$@" | tee "$OUT/scene" || return
    # Of each direction, nearly everything takes the fast path.
    [ "$(grep --count '^[a-z ]*: .*(\(9[5-9]\.[0-9]*\|100\.00\) % in XDP)' "$OUT/scene")" = 2 ]
}

refusal() {
    ./bad_input the_host_of_these_tests 2>&1 | tee "$OUT/check"
    grep --quiet 'lacks atomic compare-and-exchange' "$OUT/check"
}

case $1 in
supported)
    step load ./bad_input the_host_of_these_tests
    step fixtures tests xdp_vectors xdp_encap xdp_decap xdp_respond xdp_state xdp_attach
    step differential tests differential respond_differential
    step native scene --xdp native
    step generic scene --xdp generic --one-armed
    step devices tests devices
    ;;
unsupported)
    step refusal refusal
    ;;
esac
