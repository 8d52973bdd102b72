"""Classic BPF: an assembler with labels, the kernel's form of a program, and an interpreter that tests compare with it.

The machine (linux/filter.h, Documentation/networking/filter.rst): an accumulator A, an index register X, sixteen words
of memory, all 32 bits wide and unsigned. Jumps go forwards only, so every program ends. A load that reaches past the
packet's end ends the program with 0, which drops the packet: tests of the length have to come before such loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
MEMORY_WORDS: Final = 16  # BPF_MEMWORDS
MAX_JUMP: Final = 255  # jt and jf are bytes; the unconditional jump has 32 bits
WORD: Final = 0xFFFFFFFF

# Loads from SKF_AD_OFF on read what the kernel knows beside the packet (linux/filter.h).
ANCILLARY: Final = 0xFFFFF000
PROTOCOL: Final = 0  # EtherType, VLAN tags that the kernel took off left out
PACKET_TYPE: Final = 4
RANDOM: Final = 56
PACKET_OUTGOING: Final = 4  # of PACKET_TYPE (linux/if_packet.h)

# Instruction classes and their parts (linux/bpf_common.h, linux/filter.h).
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_SIZES: Final = {4: 0x00, 2: 0x08, 1: 0x10}
_BYTES: Final = {code: size for size, code in _SIZES.items()}
_IMM, _ABS, _IND, _MEM, _LEN = 0x00, 0x20, 0x40, 0x60, 0x80
_BY_X: Final = 0x08
_RETURN_A: Final = 0x10
_TXA: Final = 0x80
_OPERATIONS: Final = {
    "+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "neg": 0x80, "%": 0x90,
    "^": 0xA0,
}  # fmt: skip
_OPERATORS: Final = {code: sign for sign, code in _OPERATIONS.items()}
_TESTS: Final = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40}
_COMPARISONS: Final = {code: sign for sign, code in _TESTS.items()}
_INSTRUCTION: Final = Struct("=HBBI")  # struct sock_filter, host byte order


class Instruction(NamedTuple):
    """One `struct sock_filter`: operation, how far to jump when the test holds and when not, operand."""

    code: int
    jt: int
    jf: int
    k: int


class _Draft(NamedTuple):
    """An instruction whose jumps are still names; "" goes to the next one."""

    code: int
    then: str
    otherwise: str
    k: int


class Assembler:
    """Collects instructions; `assemble` makes distances of labels. Operands are numbers of 32 bits, else ValueError."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._labels: dict[str, int] = {}
        self._made = 0

    def label(self, name: str) -> None:
        """Name the place of the next instruction. Raises ValueError when the name is taken or empty."""
        if not name or name in self._labels:
            raise ValueError(f"label {name!r} is empty or set twice")
        self._labels[name] = len(self._drafts)

    def new_label(self) -> str:
        """A name that nothing else has, to be set later."""
        self._made += 1
        return f".{self._made}"

    def load(self, size: int, k: int, *, indexed: bool = False) -> None:
        """A = `size` (1, 2 or 4) bytes of the packet at `k`, or at X + `k`, in network order."""
        self._add(_LD | _SIZES[size] | (_IND if indexed else _ABS), k)

    def load_ancillary(self, what: int) -> None:
        """A = PROTOCOL, PACKET_TYPE or RANDOM."""
        self._add(_LD | _ABS, ANCILLARY + what)

    def load_length(self) -> None:
        """A = length of the packet."""
        self._add(_LD | _LEN, 0)

    def load_constant(self, k: int) -> None:
        """A = `k`."""
        self._add(_LD | _IMM, k)

    def load_memory(self, slot: int) -> None:
        """A = memory word `slot`."""
        self._add(_LD | _MEM, slot)

    def load_x_constant(self, k: int) -> None:
        """X = `k`."""
        self._add(_LDX | _IMM, k)

    def load_x_memory(self, slot: int) -> None:
        """X = memory word `slot`."""
        self._add(_LDX | _MEM, slot)

    def store(self, slot: int) -> None:
        """Memory word `slot` = A."""
        self._add(_ST, slot)

    def store_x(self, slot: int) -> None:
        """Memory word `slot` = X."""
        self._add(_STX, slot)

    def alu(self, operation: str, k: int = 0) -> None:
        """A = A `operation` `k`; operation is one of + - * / | & << >> % ^ neg."""
        self._add(_ALU | _OPERATIONS[operation], k)

    def alu_x(self, operation: str) -> None:
        """A = A `operation` X."""
        self._add(_ALU | _OPERATIONS[operation] | _BY_X, 0)

    def a_to_x(self) -> None:
        """X = A."""
        self._add(_MISC, 0)

    def x_to_a(self) -> None:
        """A = X."""
        self._add(_MISC | _TXA, 0)

    def go(self, label: str) -> None:
        """Jump, however far."""
        self._drafts.append(_Draft(_JMP, label, "", 0))

    def when(self, test: str, k: int, then: str = "", otherwise: str = "") -> None:
        """Jump to `then` when A `test` `k` holds (== > >= unsigned; & for any bit), else to `otherwise`; "" goes on."""
        self._check_word(k)
        self._drafts.append(_Draft(_JMP | _TESTS[test], then, otherwise, k))

    def when_x(self, test: str, then: str = "", otherwise: str = "") -> None:
        """The same for A `test` X."""
        self._drafts.append(_Draft(_JMP | _TESTS[test] | _BY_X, then, otherwise, 0))

    def ret(self, k: int) -> None:
        """End: `k` bytes of the packet are kept, 0 drops it."""
        self._add(_RET, k)

    def ret_a(self) -> None:
        """End with A."""
        self._add(_RET | _RETURN_A, 0)

    def assemble(self) -> list[Instruction]:
        """The program. Raises ValueError for a label that is missing, behind, or too far for a conditional jump, and
        for what the kernel would refuse."""
        program: list[Instruction] = []
        for at, draft in enumerate(self._drafts):
            if draft.code == _JMP:
                program.append(Instruction(_JMP, 0, 0, self._distance(at, draft.then)))
                continue
            jt, jf = self._distance(at, draft.then), self._distance(at, draft.otherwise)
            if max(jt, jf) > MAX_JUMP:
                raise ValueError(
                    f"from instruction {at} to {draft.then or draft.otherwise!r} is further than {MAX_JUMP}"
                )
            program.append(Instruction(draft.code, jt, jf, draft.k))
        check(program)
        return program

    def _distance(self, at: int, label: str) -> int:
        if not label:
            return 0
        place = self._labels.get(label)
        if place is None:
            raise ValueError(f"no label {label!r}")
        if place <= at:
            raise ValueError(f"label {label!r} lies behind instruction {at}")
        return place - at - 1

    def _add(self, code: int, k: int) -> None:
        self._check_word(k)
        self._drafts.append(_Draft(code, "", "", k))

    def _check_word(self, k: int) -> None:
        if not 0 <= k <= WORD:
            raise ValueError(f"{k} is not a number of 32 bits")


def check(program: Sequence[Instruction]) -> None:
    """Raises ValueError when the kernel would refuse the program (bpf_check_classic in net/core/filter.c)."""
    if not 0 < len(program) <= MAX_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions: 1 to {MAX_INSTRUCTIONS} are allowed")
    last = len(program) - 1
    for at, (code, jt, jf, k) in enumerate(program):
        kind = code & 7
        if kind == _JMP and at + 1 + (k if code == _JMP else max(jt, jf)) > last:
            raise ValueError(f"instruction {at} jumps past the end")
        if kind in (_ST, _STX) or (kind in (_LD, _LDX) and code & 0xE0 == _MEM):
            if k >= MEMORY_WORDS:
                raise ValueError(f"instruction {at}: there is no memory word {k}")
        if kind == _ALU and not code & _BY_X:
            sign = _OPERATORS[code & 0xF0]
            if (sign in ("/", "%") and k == 0) or (sign in ("<<", ">>") and k > 31):
                raise ValueError(f"instruction {at}: A {sign} {k} is refused")
    if program[last].code & 7 != _RET:
        raise ValueError("the last instruction must be a return")
    _check_memory(program)


def _check_memory(program: Sequence[Instruction]) -> None:
    """No word may be read that was not written on every way to the place (check_load_and_stores). The kernel takes a
    return for a way on to the instruction behind it; so must this."""
    every = (1 << MEMORY_WORDS) - 1
    written = [every] * (len(program) + 1)
    sure = 0
    for at, (code, jt, jf, k) in enumerate(program):
        sure &= written[at]
        kind = code & 7
        if kind in (_ST, _STX):
            sure |= 1 << k
        elif kind in (_LD, _LDX) and code & 0xE0 == _MEM:
            if not sure >> k & 1:
                raise ValueError(f"instruction {at} may read memory word {k} before it was written")
        elif kind == _JMP:
            for jump in (k,) if code == _JMP else (jt, jf):
                written[at + 1 + jump] &= sure
            sure = every


def pack(program: Sequence[Instruction]) -> bytes:
    """The program as an array of struct sock_filter, for SO_ATTACH_FILTER and PACKET_FANOUT_DATA."""
    return b"".join([_INSTRUCTION.pack(*instruction) for instruction in program])


def run(program: Sequence[Instruction], packet: bytes, ancillary: Mapping[int, int] | None = None) -> int:
    """What the program returns for a packet: how many bytes to keep, 0 to drop. `ancillary` holds the values that
    `load_ancillary` reads; those left out are 0. The program must pass `check`."""
    a = x = 0
    memory = [0] * MEMORY_WORDS
    at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        kind = code & 7
        if kind == _JMP:
            if code == _JMP:
                at += k
            else:
                at += jt if _holds(code, a, x if code & _BY_X else k) else jf
        elif kind == _RET:
            return a if code & _RETURN_A else k
        elif kind == _ALU:
            result = _calculate(code, a, x if code & _BY_X else k)
            if result < 0:
                return 0
            a = result
        elif kind == _MISC:
            if code & _TXA:
                a = x
            else:
                x = a
        elif kind == _ST:
            memory[k] = a
        elif kind == _STX:
            memory[k] = x
        else:
            value = _loaded(code, k, x, packet, memory, ancillary)
            if value < 0:
                return 0
            if kind == _LD:
                a = value
            else:
                x = value


def _holds(code: int, a: int, other: int) -> bool:
    sign = _COMPARISONS[code & 0xF0]
    if sign == "==":
        return a == other
    if sign == ">":
        return a > other
    if sign == ">=":
        return a >= other
    return a & other != 0


def _calculate(code: int, a: int, other: int) -> int:
    """The new A, or -1 for a division by zero, which ends the program with 0. Shifts use five bits (eBPF's 32-bit
    shifts do)."""
    sign = _OPERATORS[code & 0xF0]
    if sign == "+":
        return (a + other) & WORD
    if sign == "-":
        return (a - other) & WORD
    if sign == "*":
        return (a * other) & WORD
    if sign == "|":
        return a | other
    if sign == "&":
        return a & other
    if sign == "^":
        return a ^ other
    if sign == "<<":
        return (a << (other & 31)) & WORD
    if sign == ">>":
        return a >> (other & 31)
    if sign == "neg":
        return -a & WORD
    if other == 0:
        return -1
    return a // other if sign == "/" else a % other


def _loaded(code: int, k: int, x: int, packet: bytes, memory: list[int], ancillary: Mapping[int, int] | None) -> int:
    """The value of a load, or -1 when it reaches past the packet."""
    mode = code & 0xE0
    if mode == _IMM:
        return k
    if mode == _LEN:
        return len(packet)
    if mode == _MEM:
        return memory[k]
    if mode == _ABS and k >= ANCILLARY:
        return ancillary.get(k - ANCILLARY, 0) if ancillary is not None else 0
    place = (x + k) & WORD if mode == _IND else k
    end = place + _BYTES[code & 0x18]
    if place > 0x7FFFFFFF or end > len(packet):  # the kernel takes offsets as signed
        return -1
    return int.from_bytes(packet[place:end], "big")
