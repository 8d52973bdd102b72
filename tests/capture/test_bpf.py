"""The assembler, and its interpreter held against the kernel's: a filter on a datagram socket gives the verdict of any
program on any bytes, by how much of the datagram arrives."""

from __future__ import annotations

import ctypes
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture import bpf
from egressd.capture.bpf import Assembler, Instruction, check, pack, run

SO_ATTACH_FILTER = 26


class Kernel:
    """What the kernel makes of a program: `verdict` is min(returned, length), and -1 where it refuses the program."""

    def __init__(self) -> None:
        self.out, self.back = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.back.setblocking(False)

    def attach(self, program: list[Instruction]) -> bool:
        code = ctypes.create_string_buffer(pack(program), 8 * len(program))
        try:
            self.back.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
            )
        except OSError:
            return False
        return True

    def verdict(self, packet: bytes) -> int:
        self.out.send(packet)
        try:
            return len(self.back.recv(65_536))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.out.close()
        self.back.close()


@pytest.fixture
def kernel():
    made = Kernel()
    yield made
    made.close()


def program(*steps) -> list[Instruction]:
    asm = Assembler()
    for name, *args in steps:
        getattr(asm, name)(*args)
    return asm.assemble()


RETURN_A = ("ret_a",)
PACKET = bytes(range(1, 65))
TABLE = {
    "byte": ([("load", 1, 5)], 6),
    "half": ([("load", 2, 0), ("alu", "&", 0x3F)], 2),
    "word": ([("load", 4, 0), ("alu", ">>", 24)], 1),
    "indexed": ([("load_x_constant", 3), ("load", 1, 2), ("a_to_x",), ("x_to_a",)], 3),
    "length": ([("load_length",)], 64),
    "add wraps": ([("load_constant", 0xFFFFFFFF), ("alu", "+", 9)], 8),
    "subtract wraps": ([("load_constant", 1), ("alu", "-", 2), ("alu", ">>", 28)], 15),
    "multiply wraps": ([("load_constant", 0x80000001), ("alu", "*", 2)], 2),
    "divide": ([("load_constant", 50), ("alu", "/", 8)], 6),
    "remainder": ([("load_constant", 50), ("alu", "%", 8)], 2),
    "or": ([("load_constant", 5), ("alu", "|", 8)], 13),
    "exclusive or": ([("load_constant", 5), ("alu", "^", 1)], 4),
    "negate": ([("load_constant", 0xFFFFFFF0), ("alu", "neg")], 16),
    "shift": ([("load_constant", 3), ("alu", "<<", 3)], 24),
    "memory": ([("load_constant", 7), ("store", 15), ("load_constant", 0), ("load_memory", 15)], 7),
    "memory of X": ([("load_x_constant", 9), ("store_x", 0), ("load_memory", 0)], 9),
    "X of memory": ([("load_constant", 9), ("store", 3), ("load_x_memory", 3), ("x_to_a",)], 9),
    "by X": ([("load_constant", 40), ("load_x_constant", 8), ("alu_x", "-")], 32),
    "division by zero": ([("load_constant", 40), ("load_x_constant", 0), ("alu_x", "/")], 0),
    "past the end": ([("load", 4, 61)], 0),
    "to the end": ([("load", 4, 60), ("alu", "&", 0x3F)], 0),
    "ancillary": ([("load_ancillary", bpf.PACKET_TYPE), ("alu", "+", 4)], 4),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_operation(kernel, name):
    steps, want = TABLE[name]
    made = program(*steps, RETURN_A)
    assert run(made, PACKET) == want
    assert kernel.attach(made)
    assert kernel.verdict(PACKET) == want


@pytest.mark.parametrize(
    ("test", "holds", "fails"),
    [("==", (5,), (4, 6)), (">", (6, 0xFFFFFFFF), (5, 0)), (">=", (5, 6), (4,)), ("&", (4, 7), (0, 2, 8))],
)
def test_comparisons(kernel, test, holds, fails):
    for value in holds + fails:
        for by_x in (False, True):
            asm = Assembler()
            asm.load_constant(value)
            asm.load_x_constant(5)
            if by_x:
                asm.when_x(test, "yes")
            else:
                asm.when(test, 5, "yes")
            asm.ret(1)
            asm.label("yes")
            asm.ret(2)
            made = asm.assemble()
            assert run(made, PACKET) == (2 if value in holds else 1)
            assert kernel.attach(made)
            assert kernel.verdict(PACKET) == (2 if value in holds else 1)


def test_ancillary_values_are_given():
    made = program(("load_ancillary", bpf.PROTOCOL), RETURN_A)
    assert run(made, b"", {bpf.PROTOCOL: 0x800}) == 0x800
    assert run(made, b"") == 0


def jumps(distance: int, conditional: bool) -> Assembler:
    asm = Assembler()
    if conditional:
        asm.when("==", 0, "far")
    else:
        asm.go("far")
    for _ in range(distance):
        asm.load_constant(1)
    asm.label("far")
    asm.ret(0)
    return asm


def test_jumps_reach_as_far_as_they_may(kernel):
    assert run(jumps(255, True).assemble(), b"") == 0
    with pytest.raises(ValueError, match="further than 255"):
        jumps(256, True).assemble()
    far = jumps(3000, False).assemble()
    assert run(far, b"x") == 0 and kernel.attach(far)


def test_labels_are_checked():
    asm = Assembler()
    asm.label("here")
    with pytest.raises(ValueError, match="twice"):
        asm.label("here")
    asm.go("here")
    with pytest.raises(ValueError, match="behind"):
        asm.assemble()
    with pytest.raises(ValueError, match="no label"):
        program(("go", "nowhere"))
    with pytest.raises(ValueError, match="32 bits"):
        Assembler().ret(1 << 32)


BAD = {
    "empty": [],
    "too long": [Instruction(6, 0, 0, 0)] * 4097,
    "no return": [Instruction(0, 0, 0, 0)],
    "jump past the end": [Instruction(0x15, 0, 1, 0), Instruction(6, 0, 0, 0)],
    "far jump past the end": [Instruction(5, 0, 0, 1), Instruction(6, 0, 0, 0)],
    "memory 16": [Instruction(2, 0, 0, 16), Instruction(6, 0, 0, 0)],
    "division by 0": [Instruction(0x34, 0, 0, 0), Instruction(6, 0, 0, 0)],
    "shift by 32": [Instruction(0x64, 0, 0, 32), Instruction(6, 0, 0, 0)],
    "memory unwritten": [Instruction(0x60, 0, 0, 3), Instruction(6, 0, 0, 0)],
    "memory unwritten on one way": [
        Instruction(0x15, 0, 1, 0),
        Instruction(2, 0, 0, 3),
        Instruction(0x60, 0, 0, 3),
        Instruction(6, 0, 0, 0),
    ],
    "memory behind a return": [
        Instruction(0x15, 1, 0, 0),
        Instruction(6, 0, 0, 0),
        Instruction(2, 0, 0, 3),
        Instruction(0x15, 0, 0, 0),
        Instruction(6, 0, 0, 0),
        Instruction(0x60, 0, 0, 4),
        Instruction(6, 0, 0, 0),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_kernel_refuses_is_refused(kernel, name):
    with pytest.raises(ValueError):
        check(BAD[name])
    assert not kernel.attach(BAD[name])


VALUES = st.one_of(st.integers(0, 40), st.sampled_from([0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, bpf.WORD))
STEPS = st.one_of(
    st.tuples(st.just("load"), st.sampled_from([1, 2, 4]), st.integers(0, 80)),
    st.tuples(st.just("load_indexed"), st.sampled_from([1, 2, 4]), st.integers(0, 80)),
    st.tuples(st.just("load_constant"), VALUES),
    st.tuples(st.just("load_x_constant"), st.integers(0, 60)),
    st.tuples(st.sampled_from(["load_length", "a_to_x", "x_to_a"])),
    st.tuples(st.sampled_from(["store", "store_x", "load_memory", "load_x_memory"]), st.integers(0, 3)),
    st.tuples(st.just("alu"), st.sampled_from(["+", "-", "*", "|", "&", "^", "neg"]), VALUES),
    st.tuples(st.just("alu"), st.sampled_from(["<<", ">>"]), st.integers(0, 31)),
    st.tuples(st.just("alu"), st.sampled_from(["/", "%"]), st.integers(1, bpf.WORD)),
    st.tuples(st.just("alu_x"), st.sampled_from(["+", "-", "*", "/", "%", "|", "&", "^"])),
    st.tuples(st.just("when"), st.sampled_from(["==", ">", ">=", "&"]), VALUES, st.integers(0, 4)),
    st.tuples(st.just("when_x"), st.sampled_from(["==", ">", ">=", "&"]), st.integers(0, 4)),
    st.tuples(st.just("ret"), st.integers(0, 70)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=25), st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=4))
def test_the_interpreter_agrees_with_the_kernel(steps, packets):
    asm = Assembler()
    for slot in range(4):
        asm.store(slot)
    asm.load_x_constant(0)
    labels = {}
    for at, (name, *args) in enumerate(steps):
        for label in labels.pop(at, ()):
            asm.label(label)
        if name in ("when", "when_x"):
            label = asm.new_label()
            labels.setdefault(min(at + 1 + args.pop(), len(steps)), []).append(label)
            getattr(asm, name)(*args, label)
        elif name == "load_indexed":
            asm.load(*args, indexed=True)
        else:
            getattr(asm, name)(*args)
    for label in labels.get(len(steps), ()):
        asm.label(label)
    asm.alu("&", 0x7F)
    asm.ret_a()
    made = asm.assemble()
    kernel = Kernel()
    try:
        assert kernel.attach(made)
        for packet in packets:
            assert min(run(made, packet), len(packet)) == kernel.verdict(packet)
    finally:
        kernel.close()


@given(st.binary(max_size=200))
def test_what_is_packed_has_the_kernels_form(octets):
    made = [Instruction(6, 0, 0, n) for n in octets]
    assert pack(made) == b"".join(struct.pack("=HBBI", 6, 0, 0, n) for n in octets)
