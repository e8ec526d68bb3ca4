// SPDX-License-Identifier: MIT
// Symbols that the image gets from assembly, the linker script and scripts/make-symbols. Tests fill them where they
// look at them; everybody else only links.
asm(".pushsection .data, \"aw\"\n"
    ".balign 16\n"
    ".globl symbol_table\nsymbol_table: .zero 1024\n"
    ".globl text_start\ntext_start: .zero 256\n"
    ".globl text_end\ntext_end: .zero 16\n"
    ".globl exception_fixups_start\nexception_fixups_start: .quad 0x1111, 0x2222, 0x3333, 0x4444\n"
    ".globl exception_fixups_end\nexception_fixups_end: .zero 16\n"
    ".globl trap_stubs\ntrap_stubs: .zero 16\n"
    ".balign 4096\n"
    ".globl entry_start\nentry_start: .zero 8192\n"
    ".globl entry_end\nentry_end: .zero 16\n"
    ".globl trap_from_user_saved\ntrap_from_user_saved: .zero 16\n"
    ".popsection\n");
