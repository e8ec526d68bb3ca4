// SPDX-License-Identifier: MIT
// A Multiboot2 header beside the runtime's Multiboot1 header; the entry point is the same. [multiboot2] 3.1
.set MAGIC, 0xe85250d6

.section .boot, "axR" // anywhere in the first 32 KiB; kept although nothing refers to it
.balign 8
header:
    .long MAGIC
    .long 0 // i386
    .long header_end - header
    .long -(MAGIC + header_end - header)
    .short 3, 0 // entry address
    .long 12
    .long entry_pvh
    .balign 8
    .short 0, 0
    .long 8
header_end:

.section .note.GNU-stack, "", @progbits
