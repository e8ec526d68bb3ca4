// SPDX-License-Identifier: MIT
// The programs of ring 3, as files: the kernel loads each into an address space of its own.
.section .rodata.services, "a"
.balign 16
.globl storage_service_begin, storage_service_end, network_service_begin, network_service_end
storage_service_begin:
.incbin "storage.elf"
storage_service_end:
.balign 16
network_service_begin:
.incbin "network.elf"
network_service_end:
.section .note.GNU-stack, "", @progbits
