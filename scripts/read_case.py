#!/usr/bin/env python3
"""Reads a case as fixtures/README.md describes it, with nothing but Python's standard library.

    scripts/read_case.py CASE            what went in, and what the kernel decided, a line for each packet
    scripts/read_case.py --check FOLDER  reads all cases below and counts them
"""

import json
import pathlib
import struct
import sys
import tomllib


def packets(path):
    """Time in ns, interface name, link type and bytes of each packet of a pcapng."""
    data = path.read_bytes()
    interfaces, at, order = [], 0, "<"
    while at < len(data):
        (kind,) = struct.unpack_from(order + "I", data, at)
        if kind == 0x0A0D0D0A:  # A section, which says its byte order.
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        (length,) = struct.unpack_from(order + "I", data, at + 4)
        body = data[at + 8 : at + length - 4]
        if kind == 1:
            (linktype,) = struct.unpack_from(order + "H", body)
            name, resolution = None, 6
            for code, value in options(body[8:], order):
                if code == 2:
                    name = value.decode()
                elif code == 9:
                    resolution = value[0]
            interfaces.append((name, linktype, resolution))
        elif kind == 6:
            number, high, low, kept, _ = struct.unpack_from(order + "5I", body)
            name, linktype, resolution = interfaces[number]
            yield (high << 32 | low) * 10 ** (9 - resolution), name, linktype, body[20 : 20 + kept]
        at += length


def options(data, order):
    """Code and value of each option of a block."""
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4


def length(text):
    """How many bytes a text of hex digits is; `..` is a byte that the kernel draws at random."""
    assert all(pair == ".." or int(pair, 16) >= 0 for pair in map("".join, zip(text[::2], text[1::2])))
    return len(text) // 2


class Case:
    """A case: `spec`, `packets`, and `recordings` by release."""

    def __init__(self, folder):
        self.spec = tomllib.loads((folder / "case.toml").read_text())
        self.packets = list(packets(folder / "packets.pcapng"))
        self.recordings = {}
        for file in sorted(folder.glob("kernel-*.jsonl")):
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert lines[0]["kind"] == "kernel" and lines[0]["schema"] == 1, file
            self.recordings[lines[0]["release"]] = {
                "kernel": lines[0],
                "packets": [line for line in lines if line["kind"] == "packet"],
                "table": next((line["entries"] for line in lines if line["kind"] == "table"), None),
            }

    def check(self, name):
        """What holds of every case."""
        interfaces = {interface["name"] for interface in self.spec["interface"]}
        assert self.recordings, f"{name}: no recording"
        for _, interface, linktype, _ in self.packets:
            assert interface in interfaces and linktype in (1, 101), name
        for recording in self.recordings.values():
            decided = recording["packets"]
            assert [line["packet"] for line in decided] == list(range(1, len(self.packets) + 1)), name
            for line in decided:
                for sent in line["forwarded"] + line["generated"]:
                    assert sent["iface"] in interfaces and length(sent["bytes"]) >= 20, name

    def show(self):
        """A line for each packet."""
        print(self.spec["title"])
        for recording in self.recordings.values():
            for (_, interface, _, data), line in zip(self.packets, recording["packets"]):
                words = [line.get("ctinfo", "not seen by conntrack")]
                words += [f"forwarded by {sent['iface']} ({length(sent['bytes'])} bytes)" for sent in line["forwarded"]]
                words += ["delivered"] * line["local"]
                words += [f"answered by {sent['iface']}" for sent in line["generated"]]
                print(f"{line['packet']} {interface} {len(data)} bytes: {', '.join(words)}")


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--check":
        folders = sorted(file.parent for file in pathlib.Path(arguments[1]).rglob("case.toml"))
        cases = [(folder.name, Case(folder)) for folder in folders]
        for name, case in cases:
            case.check(name)
        print(f"{len(cases)} cases, {sum(len(case.packets) for _, case in cases)} packets")
    elif len(arguments) == 1:
        Case(pathlib.Path(arguments[0])).show()
    else:
        sys.exit(__doc__)


main()
