#!/usr/bin/env bash
# One rank of two threads, two ranks of one, and the same with synchronised normalisation, in turn; then, as root on
# Linux, two ranks over wires of limited speed between network namespaces. Images per second of an epoch.
#
#     benches/scaling/measure.sh target/release/ror DATA [ROUNDS]
#
# The command must have the feature mpi. DATA are some 2,500 training images (a folder per class under train/).
set -euo pipefail
ror=$(realpath "$1") data=$(realpath "$2") rounds=${3:-2}
runs=$(mktemp -d)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
train=(train --model keras-ror-3-wrn-40-2 --data "$data" --epochs 1 --batch-size 64 --seed 3)

measure() { # NAME COMMAND...
    local name=$1 out
    shift
    out=$(mktemp -u "$runs/XXXXXX")
    "$@" --out "$out" > "$runs/log" 2>&1 || { cat "$runs/log"; exit 1; }
    echo "$name $(tail -n 1 "$out/metrics.csv" | cut -d, -f9)"
}

for _ in $(seq "$rounds"); do
    measure "one rank of two threads   " "$ror" "${train[@]}" --threads 2
    measure "two ranks of one thread   " mpirun -n 2 "$ror" "${train[@]}" --threads 1
    measure "the same, synchronised    " mpirun -n 2 "$ror" "${train[@]}" --threads 1 --sync-batch-norm
done

[ "$(id -u)" -eq 0 ] && command -v ip tc > /dev/null || { rm -r "$runs"; exit 0; }
trap 'ip netns del ror1 || true; ip netns del ror2 || true; rm -r "$runs"' EXIT
ip netns add ror1
ip netns add ror2
ip link add ror-wire1 netns ror1 type veth peer name ror-wire2 netns ror2
for i in 1 2; do
    ip netns exec ror$i ip addr add 10.77.0.$i/24 dev ror-wire$i
    ip netns exec ror$i ip link set ror-wire$i up
    ip netns exec ror$i ip link set lo up
done
# What mpirun takes for ssh: HOST COMMAND...
cat > "$runs/agent" <<'AGENT'
#!/bin/sh
i=${1##*.}
shift
exec ip netns exec ror$i unshare --uts sh -c "hostname ror$i; exec sh -c '$*'"
AGENT
chmod +x "$runs/agent"
over() {
    ip netns exec ror1 unshare --uts sh -c 'hostname ror1; exec "$@"' sh mpirun -n 2 \
        --host 10.77.0.1,10.77.0.2 --mca plm_rsh_agent "$runs/agent" --mca btl tcp,self --bind-to none \
        --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 "$@"
}
for rate in unlimited 1gbit 200mbit; do
    for i in 1 2; do
        ip netns exec ror$i tc qdisc del dev ror-wire$i root 2> /dev/null || true
        [ $rate = unlimited ] ||
            ip netns exec ror$i tc qdisc add dev ror-wire$i root tbf rate $rate burst 128kb latency 50ms
    done
    measure "two ranks, $rate" over "$ror" "${train[@]}" --threads 1
done
