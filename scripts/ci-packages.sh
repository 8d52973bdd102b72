#!/bin/sh
# The one place where CI uses root and apt: tools that tests compare egressd with, and those that the tests in network
# namespaces stand on. Without them those tests skip and say so.
set -eu
missing=""
need() { # program package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need tshark tshark
need tcpdump tcpdump
need ip iproute2
need nft nftables
need conntrack conntrack
need unbound unbound
need setpriv util-linux
need systemd-analyze systemd
need systemd-nspawn systemd-container
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not root: going on without$missing" >&2
    exit 0
fi
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
