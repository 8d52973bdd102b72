"""Which threat tags of indicators name one adversary's doing, so that two indicators with the same one belong together.

Lists say `threat=emotet` and `threat=c2`; the first ties what is found by it to one campaign, the second would tie half
the world together. What stays of a tag when generic words are taken away counts, if anything does.
"""

from __future__ import annotations

import re
from typing import Final

MAX_THREAT: Final = 512  # characters that are looked at
MAX_TAG: Final = 64
_WORD: Final = re.compile(r"[a-z0-9]+")

# What says what sort of thing it is, or how it was found, but not whose it is.
_GENERIC: Final = """
abuse activity actor ads adware advert advertising agent analytics and apk app apt attack attacker backdoor bad
badware banker banking beacon behaviour behavior benign blacklist blocklist block bot botnet botnets botnetcc browser
brute bulletproof c2 callback campaign cc clicker cloud cnc coin coinminer command commandandcontrol compromised
control controller crypto cryptojacking cryptominer cve ddos delivery demo dga dns domain domains dos download
downloader drive driver drop dropper dynamic email encrypt exe exfil exfiltration exploit exploitkit fake feed file
files for fraud frame framework from generic google gov grayware greyware group hack hacking hacktool heuristic
high host hosting hosts http https indicator infected infection info infostealer infrastructure injector ioc iot ip
ips java js kit known landing linux list listed loader low mac macos mail mal malicious maldoc maldocs malspam
malware malwares medium mining miner misc mobile mozi net network of office office365 on online open other page
panel parked payload payloaddelivery phish phishing pool post powershell proxy pua pup ransom ransomware rat
remote research reputation risk rogue rootkit scam scan scanner scanning script server servers shell site sinkhole
skimmer smishing spam spyware ssh stage stealer suspect suspicious spy tds telemetry test the threat threats
tool tools tor tracker tracking traffic trojan typosquat typosquatting unknown unsafe unwanted update url urls
unspecified user various virus vishing vpn vulnerability watch web webshell website win windows worm
zeroday zip
"""

# Tools that anybody can have: who uses one has nothing to do with who else does.
_SHARED_TOOLS: Final = """
asyncrat brc4 bruteratel cobalt cobaltstrike covenant darkcomet deimos dcrat empire evilginx gophish havoc
merlin metasploit meterpreter mimikatz mirai mythic nanocore ngrok njrat pupy quasar quasarrat remcos remcosrat
silver sliver strike viper villain xmrig
"""

GENERIC: Final = frozenset(_GENERIC.split())
SHARED_TOOLS: Final = frozenset(_SHARED_TOOLS.split())


def family_of(threat: str) -> str:
    """What an indicator's threat tag names beyond generic words and tools for all, in lower case; "" when nothing. Two
    indicators with the same are of one campaign."""
    if len(threat) > MAX_THREAT:
        return ""  # that is no tag
    words = [
        word
        for word in _WORD.findall(threat.lower())
        if len(word) > 1 and word not in GENERIC and word not in SHARED_TOOLS
    ]
    text = " ".join(words)

    text = text[:MAX_TAG].rstrip()
    return text if len(text) >= 4 and not text.replace(" ", "").isdigit() else ""
