#!/bin/sh
# Shows the main job on the incident that egressd exists for (pcaps/jps-2015): no root, no configuration, no network.
set -eu
cd "$(dirname "$0")/.."
egressd=.venv/bin/egressd

say() {
    printf '\n$ egressd %s\n' "$*"
}

echo "The incident of 2015, replayed from four captures: who reached a listed registered domain, what a block would have"
echo "stopped, and who kept trying after it. In 2015 nobody watched the blocked destination; see pcaps/jps-2015/README.md."

say "check b.news-portal.example"
$egressd check b.news-portal.example

say "explain news-portal.example pcaps/jps-2015/*.pcap"
$egressd explain news-portal.example pcaps/jps-2015/*.pcap

say "replay pcaps/jps-2015/*.pcap"
$egressd replay pcaps/jps-2015/*.pcap
