#!/bin/sh
# Shows the main job on the incident that egressd exists for: as root with nft, live, with real packets through the real
# daemon and kernel in network namespaces; else replayed from captures (pcaps/jps-2015), which needs nothing.
set -eu
cd "$(dirname "$0")/.."
egressd=.venv/bin/egressd

if why=$(.venv/bin/python scripts/demo_live.py --check 2>/dev/null); then
    exec .venv/bin/python scripts/demo_live.py
fi

say() {
    printf '\n$ egressd %s\n' "$*"
}

echo "Replayed, not live: the live demonstration ${why:-cannot run here}."
echo "With real packets and the real daemon: apt-get install nftables iproute2, then run make demo as root."
echo
echo "The incident of 2015, replayed from four captures: who reached a listed registered domain, what a block would have"
echo "stopped, and who kept trying after it. In 2015 nobody watched the blocked destination; see pcaps/jps-2015/README.md."

say "check b.news-portal.example"
$egressd check b.news-portal.example

say "explain news-portal.example pcaps/jps-2015/*.pcap"
$egressd explain news-portal.example pcaps/jps-2015/*.pcap

say "replay pcaps/jps-2015/*.pcap"
$egressd replay pcaps/jps-2015/*.pcap
