// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <lib/memory.hpp>
#include <loader/bios.hpp>
#include <loader/guest_acpi_tables.hpp>

// Code of the guest, 16 bits: it is copied to F000:BIOS_AT and never runs here. What follows `bios_data` is filled in.
// In each handler, 6(%bp) are the flags that IRET brings back.
asm(R"(
    .pushsection .rodata.bios, "a"
    .set BIOS_AT, 0x1000
    .set HERE, bios_begin - BIOS_AT
    .code16
bios_begin:
bios_refuse:                    # no such service: carry
    pushw %bp
    movw %sp, %bp
    orb $1, 6(%bp)
    popw %bp
bios_ignore:
    iretw
bios_done:                      # no carry
    pushw %bp
    movw %sp, %bp
    andb $0xfe, 6(%bp)
    popw %bp
    iretw

bios_timer:                     # interrupt 8: 40:6Ch counts, 40:70h says that midnight has passed
    pushw %ds
    pushw %ax
    xorw %ax, %ax
    movw %ax, %ds
    incl 0x46c
    cmpl $0x1800b0, 0x46c
    jb 1f
    movl $0, 0x46c
    incb 0x470
1:  int $0x1c
    popw %ax
    popw %ds
bios_first_8259:
    pushw %ax
    movb $0x20, %al
    outb %al, $0x20
    popw %ax
    iretw
bios_second_8259:
    pushw %ax
    movb $0x20, %al
    outb %al, $0xa0
    outb %al, $0x20
    popw %ax
    iretw

bios_video:                     # interrupt 10h
    cmpb $0x0e, %ah
    jne bios_refuse
    pushw %dx
    pushw %ax
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al            # COM1 can take a byte
    jz 1b
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    popw %dx
    iretw

bios_equipment:                 # interrupt 11h
    pushw %ds
    xorw %ax, %ax
    movw %ax, %ds
    movw 0x410, %ax
    popw %ds
    iretw
bios_base_memory:               # interrupt 12h
    pushw %ds
    xorw %ax, %ax
    movw %ax, %ds
    movw 0x413, %ax
    popw %ds
    iretw

bios_system:                    # interrupt 15h
    cmpw $0xe820, %ax
    je bios_map
    cmpw $0xe801, %ax
    je 1f
    cmpb $0x88, %ah
    jne bios_refuse
    movw %cs:bios_kib_below_64m - HERE, %ax
    jmp bios_done
1:  movw %cs:bios_kib_below_16m - HERE, %ax
    movw %ax, %cx
    movw %cs:bios_64kib_above_16m - HERE, %bx
    movw %bx, %dx
    jmp bios_done
bios_map:                       # EBX: which entry, ES:DI: where to, ECX: how much fits there
    cmpl $0x534d4150, %edx      # "SMAP"
    jne bios_refuse
    cmpl $20, %ecx
    jb bios_refuse
    movzwl %cs:bios_map_entries - HERE, %eax
    cmpl %eax, %ebx
    jae bios_refuse
    pushw %ds
    pushw %si
    pushw %di
    pushw %cs
    popw %ds
    imulw $20, %bx, %si
    addw $bios_map_begin - HERE, %si
    movw $10, %cx
    cld
    rep movsw
    popw %di
    popw %si
    popw %ds
    incl %ebx
    cmpl %eax, %ebx
    jb 1f
    xorl %ebx, %ebx             # that was the last
1:  movl $0x534d4150, %eax
    movl $20, %ecx
    jmp bios_done

bios_keyboard:                  # interrupt 16h
    cmpb $0x01, %ah
    je 1f
    cmpb $0x11, %ah
    jne bios_refuse
1:  pushw %bp
    movw %sp, %bp
    orb $0x40, 6(%bp)           # ZF: no key
    popw %bp
    iretw

bios_time:                      # interrupt 1Ah
    testb %ah, %ah
    jnz bios_refuse
    pushw %ds
    pushw %ax
    xorw %ax, %ax
    movw %ax, %ds
    movw 0x46c, %dx
    movw 0x46e, %cx
    popw %ax
    movb 0x470, %al
    movb $0, 0x470
    popw %ds
    jmp bios_done

    .balign 4
bios_data:
bios_kib_below_64m:     .word 0
bios_kib_below_16m:     .word 0
bios_64kib_above_16m:   .word 0
bios_map_entries:       .word 0
bios_map_begin:
bios_end:
    .code64
    .popsection
)");

extern "C" lib::u8 const bios_begin[], bios_end[], bios_data[], bios_refuse[], bios_ignore[], bios_timer[],
    bios_first_8259[], bios_second_8259[], bios_video[], bios_equipment[], bios_base_memory[], bios_system[],
    bios_keyboard[], bios_time[];

namespace loader {
namespace {

using lib::GuestPhys;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 code_offset = 0x1000; // BIOS_AT, from F000:0
constexpr u32 segment = 0xf000;
static_assert(bios_area.value == u64{segment} << 4);

constexpr u32 vector_of(u8 const* handler) {
    return static_cast<u32>(code_offset + static_cast<u64>(handler - bios_begin)) | segment << 16;
}

// All at once: guest memory is looked up for each write.
lib::Result<void> write_vectors(lib::GuestMemory const& memory) {
    std::array<u32, 256> vectors;
    vectors.fill(vector_of(bios_refuse));
    auto const set = [&](u32 first, u32 count, u8 const* handler) {
        std::fill_n(vectors.begin() + first, count, vector_of(handler));
    };
    set(0, 8, bios_ignore); // exceptions
    set(0x08, 8, bios_first_8259);
    set(0x70, 8, bios_second_8259);
    set(0x08, 1, bios_timer);
    set(0x10, 1, bios_video);
    set(0x11, 1, bios_equipment);
    set(0x12, 1, bios_base_memory);
    set(0x15, 1, bios_system);
    set(0x16, 1, bios_keyboard);
    set(0x1a, 1, bios_time);
    set(0x1b, 2, bios_ignore);
    return memory.write(GuestPhys{0}, {reinterpret_cast<u8 const*>(vectors.data()), sizeof(vectors)});
}

// What old code reads from 40:0 on.
lib::Result<void> write_data_area(lib::GuestMemory const& memory) {
    TRY(memory.write(GuestPhys{0x400}, u16{0x3f8}));                              // COM1
    TRY(memory.write(GuestPhys{0x40e}, static_cast<u16>(ebda_start >> 4)));       // the EBDA's segment
    TRY(memory.write(GuestPhys{0x410}, u16{1 << 9 | 1 << 1}));                    // one serial port, an x87
    TRY(memory.write(GuestPhys{0x413}, static_cast<u16>(ebda_start / lib::KiB))); // base memory
    TRY(memory.write(GuestPhys{0x41a}, u32{0x001e'001e}));                        // no key in the buffer
    TRY(memory.write(GuestPhys{0x480}, u32{0x003e'001e}));                        // which lies there
    return memory.write(GuestPhys{ebda_start}, u8{1});                            // the EBDA's own size in KiB
}

} // namespace

lib::Result<void> write_bios(lib::GuestMemory const& memory, E820Map const& map) {
    TRY(write_vectors(memory));
    TRY(write_data_area(memory));
    GuestPhys const code = bios_area + code_offset;
    TRY(memory.write(code, std::span<u8 const>(bios_begin, bios_end)));
    u64 extended = 0; // RAM from 1 MiB on, without a gap
    for (E820Entry const& entry : map.entries())
        if (entry.base == lib::MiB && entry.type == e820_ram) extended = entry.size;
    u64 const below_16m = extended < 15 * lib::MiB ? extended : 15 * lib::MiB;
    u64 const below_64m = extended < 63 * lib::MiB ? extended : 63 * lib::MiB;
    std::array<u16, 4> const sizes{static_cast<u16>(below_64m / lib::KiB), static_cast<u16>(below_16m / lib::KiB),
                                   static_cast<u16>((extended - below_16m) / (64 * lib::KiB)),
                                   static_cast<u16>(map.entries().size())};
    GuestPhys at = code + static_cast<u64>(bios_data - bios_begin);
    TRY(memory.write(at, sizes));
    at += sizeof(sizes);
    for (E820Entry const& entry : map.entries()) {
        TRY(memory.write(at, entry));
        at += sizeof(E820Entry);
    }
    return {};
}

} // namespace loader
