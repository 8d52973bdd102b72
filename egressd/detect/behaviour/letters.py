"""How unlike a word a label is: bits a letter under a model of letter pairs.

Names that people choose follow the letter pairs of their languages; names that a generator draws do not (Yadav, Reddy
et al., "Detecting algorithmically generated malicious domain names", IMC 2010, use letter and pair frequencies). The
pairs are counted from the labels of the Public Suffix List and of the guard, both in this package; the table is made
by scripts/generate_letters.py.
"""

from __future__ import annotations

from math import log2
from typing import Final

from egressd.detect.behaviour.letter_costs import COSTS

SYMBOLS: Final = "abcdefghijklmnopqrstuvwxyz0-^"  # every digit is "0", anything else "-", "^" is the label's edge
WIDTH: Final = len(SYMBOLS)
BASE: Final = 33  # a cost in tenths of a bit is told by the character of that number from here on
STRANGE_BITS: Final = 5.0  # a letter: 19 of 20 labels of 12 random letters have more, of the lists under 1 in 100
LEAST_LETTERS: Final = 8  # shorter labels tell nothing: abbreviations look random too

_NUMBER: Final = {symbol: number for number, symbol in enumerate(SYMBOLS)}
_TENTHS: Final = tuple(ord(cost) - BASE for cost in COSTS)
_WEIGHTS: Final = [0.0] + [count * log2(count) for count in range(1, 256)]  # of a letter that occurs so often


def surprise(label: str) -> float:
    """Mean bits a letter of a label in lower case; 0.0 of an empty one. English words have 3.5 to 4.5, letters drawn at
    random over 6."""
    if not label:
        return 0.0
    before = WIDTH - 1
    total = 0
    for letter in label:
        number = _NUMBER.get(letter, -1)
        if number < 0 or number == WIDTH - 1:
            number = 26 if "0" <= letter <= "9" else 27
        total += _TENTHS[before * WIDTH + number]
        before = number
    total += _TENTHS[before * WIDTH + WIDTH - 1]
    return total / 10.0 / (len(label) + 1)


def is_strange(label: str) -> bool:
    """Whether a label looks drawn by a generator. Labels in A-label form are of other scripts and say nothing."""
    return len(label) >= LEAST_LETTERS and not label.startswith("xn--") and surprise(label) >= STRANGE_BITS


def entropy_bits(text: str) -> float:
    """Shannon's entropy of a text's own characters, bits a character: hexadecimal has up to 4, base64 up to 6."""
    length = len(text)
    if not length:
        return 0.0
    # log2(length) less the mean of log2(count). A letter's count is what is missing once it is taken out: half the time
    # of a dictionary of counts, and always in the order of the text, so that the sum is the same to the last bit.
    total = 0.0
    while text:
        before = len(text)
        text = text.replace(text[0], "")
        count = before - len(text)
        total += count * log2(count) if count >= len(_WEIGHTS) else _WEIGHTS[count]
    return log2(length) - total / length
