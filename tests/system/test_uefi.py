# SPDX-License-Identifier: MIT
"""The screen of the machine: UEFI with a framebuffer, and a BIOS with VGA text. QEMU with AMD-V; and VT-x by UEFI."""
import re

from framework import PROMPT, boot_guest, boot_linux, check_power_off, hypervisor, system_test

GLYPH_WIDTH = 8


def log_lines(console):
    """Mullion's lines on the serial line up to the start of the guest, which shares it from then on."""
    text = bytes(console.seen).decode(errors="replace")
    own = text[:re.search(r"vm linux: started[^\r\n]*", text).end()]
    lines = re.findall(r"\[ *\d+\.\d{6}\] [^\r\n]*", own)
    assert len(lines) > 3, lines
    return lines


def rows_of(lines, columns):
    return [line[at:at + columns].rstrip() for line in lines for at in range(0, len(line), columns)]


def font():
    """From what the build made of it: the height, and which character has which glyph."""
    values = [bytes.fromhex(re.sub("0x|, ", "", line[len(".byte "):])) if "x" in line else bytes([int(line.split()[1])])
              for line in (hypervisor().parent / "font.S").read_text().splitlines() if line.startswith(".byte")]
    glyphs = {values[1 + code]: chr(code) for code in reversed(range(0x20, 0x7f))}
    return values[0][0], glyphs


def read_screen(ppm):
    """The rows of text in the picture; a cell that shows none of the font's characters is an error."""
    kind, size, deepest, pixels = ppm.split(b"\n", 3)
    assert (kind, deepest) == (b"P6", b"255"), (kind, deepest)
    width, height = map(int, size.split())
    lit = pixels[1::3]  # green: every colour of text has it, the background has none
    font_height, glyphs = font()
    assert glyphs[bytes(font_height)] == " " and len(glyphs) == 0x7f - 0x20
    rows = []
    for top in range(0, height - font_height + 1, font_height):
        row = ""
        for left in range(0, width - GLYPH_WIDTH + 1, GLYPH_WIDTH):
            cell = bytes(sum(1 << (7 - x) for x in range(GLYPH_WIDTH) if lit[(top + y) * width + left + x]) for y in range(font_height))
            assert cell in glyphs, f"no character at line {len(rows)}, column {len(row)}: {cell.hex()}"
            row += glyphs[cell]
        rows.append(row.rstrip())
    return rows, width // GLYPH_WIDTH


@system_test(backend="qemu", why="Bochs 2.7 has no UEFI", also=("amd-v/debian-13",))
def uefi_boots_to_a_shell_and_shows_the_log():
    with boot_linux(kind="qemu", uefi=True) as console:
        console.expect(PROMPT)
        assert "x86_64" in console.command("uname -a")
        loader = bytes(console.seen).partition(b"Mullion starts")[0]
        assert b"error:" not in loader, loader
        rows, columns = read_screen(console.machine.screenshot())
        expected = rows_of(log_lines(console), columns)
        assert rows[:len(expected)] == expected, "\n".join(["on the screen:", *rows, "on the serial line:", *expected])
        console.send("poweroff\n")
        check_power_off(console)


@system_test(backend="qemu", why="Bochs 2.7 has no UEFI")
def uefi_without_a_screen():
    with boot_linux(command="uname -m", kind="qemu", uefi=True, screen=False) as console:
        console.expect(r"screen: the loader left none")
        console.expect(r"<mullion-command test>\nx86_64\n<mullion-status test 0>")
        check_power_off(console)


@system_test(backend="vt-x/testing", why="VT-x and UEFI together needs Bochs 3.1, which runs no Linux")
def uefi_with_vt_x():
    with boot_guest("behave", "test=time", uefi=True) as console:
        assert b"UEFI" in console.expect(r"[^\x00]*Mullion starts").group()
        console.expect("guest: done 0")
        check_power_off(console)


@system_test(backend="qemu", why="Bochs gives no picture of its screen")
def bios_shows_the_log_as_text():
    with boot_linux(kind="qemu", screen=True) as console:
        console.expect(PROMPT)
        dump = console.machine.folder / "text"
        console.machine.qmp("pmemsave", val=0xb8000, size=80 * 25 * 2, filename=str(dump))
        characters = dump.read_bytes()[::2].decode("latin-1")
        rows = [characters[at:at + 80].rstrip() for at in range(0, len(characters), 80)]
        expected = rows_of(log_lines(console), 80)
        assert rows[:len(expected)] == expected, "\n".join(["on the screen:", *rows, "on the serial line:", *expected])
        console.send("poweroff\n")
        check_power_off(console)
