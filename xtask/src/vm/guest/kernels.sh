# Tries the daemon on this kernel, step by step. Each step leaves its output in $OUT/STEP.log and
# prints a line with its name, its result and its seconds.
set -o pipefail
export TEREDO_BIN=$PWD/teredo RUST_BACKTRACE=0
# Devices that not every kernel has compiled in; a step says what it misses.
modprobe --all --quiet tun veth bridge 8021q bonding vrf

step() {
    local name=$1 result=ok start=$SECONDS
    shift
    "$@" >"$OUT/$name.log" 2>&1 || result=failed
    echo "step $name $result $((SECONDS - start))"
    [ $result = ok ] || tail --lines=20 "$OUT/$name.log"
}

tests() {
    local test
    for test in "$@"; do
        "./$test" --test-threads=2 || return
    done
}

# One test must have run: a filter that fits none passes, too. The program of one host has only the parts that
# it needs; the other test loads all of them.
loads() {
    ./bad_input the_unspoiled_host_passes | tee "$OUT/check" || return
    grep --quiet ' [1-9][0-9]* passed' "$OUT/check" || return
    tests xdp_verifier
}

scene() {
    ./scene --seconds 3 "$@" | tee "$OUT/scene" || return
    # Of each direction, nearly everything takes the fast path.
    [ "$(grep --count '^[a-z ]*: .*(\(9[5-9]\.[0-9]*\|100\.00\) % in XDP)' "$OUT/scene")" = 2 ]
}

refusal() {
    ./bad_input the_unspoiled_host_passes 2>&1 | tee "$OUT/check"
    grep --quiet 'lacks atomic compare-and-exchange' "$OUT/check"
}

case $1 in
supported)
    step load loads
    step fixtures tests xdp_vectors xdp_encap xdp_decap xdp_respond xdp_state xdp_attach xdp_builds xdp_vlan
    PROPTEST_CASES=500 step differential tests differential respond_differential
    step native scene --xdp native
    step generic scene --xdp generic --one-armed
    step devices tests devices
    ;;
unsupported)
    step refusal refusal
    ;;
esac
