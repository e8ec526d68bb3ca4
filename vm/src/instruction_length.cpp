// SPDX-License-Identifier: MIT
#include "code_cursor.hpp"
#include "prefixes.hpp"

#include <algorithm>
#include <array>
#include <vm/instruction_length.hpp>

namespace vm {
namespace {

// What follows the opcode.
enum class Tail : u8 { None, Byte, Register, Group01 };

struct Entry {
    Intercepted kind = Intercepted::Unsupported;
    Tail tail = Tail::None;
    bool byte = false; // the 8-bit form
};
using Map = std::array<Entry, 256>;

constexpr Map one_byte = [] {
    Map map{};
    for (unsigned i = 0; i < 2; ++i) { // even: 8 bits
        bool const byte = i == 0;
        map[0x6c + i] = {.kind = Intercepted::Ins, .byte = byte};
        map[0x6e + i] = {.kind = Intercepted::Outs, .byte = byte};
        map[0xe4 + i] = {.kind = Intercepted::In, .tail = Tail::Byte, .byte = byte};
        map[0xe6 + i] = {.kind = Intercepted::Out, .tail = Tail::Byte, .byte = byte};
        map[0xec + i] = {.kind = Intercepted::In, .byte = byte};
        map[0xee + i] = {.kind = Intercepted::Out, .byte = byte};
    }
    map[0x90] = {.kind = Intercepted::Pause}; // with F3
    map[0x9c] = {.kind = Intercepted::Pushf};
    map[0x9d] = {.kind = Intercepted::Popf};
    map[0xcc] = {.kind = Intercepted::Int3};
    map[0xcd] = {.kind = Intercepted::Int, .tail = Tail::Byte};
    map[0xce] = {.kind = Intercepted::Into}; // not in 64-bit mode
    map[0xcf] = {.kind = Intercepted::Iret};
    map[0xf1] = {.kind = Intercepted::Icebp};
    map[0xf4] = {.kind = Intercepted::Hlt};
    return map;
}();

constexpr Map two_byte = [] {
    Map map{};
    map[0x01] = {.tail = Tail::Group01};
    map[0x06] = {.kind = Intercepted::Clts};
    map[0x08] = {.kind = Intercepted::Invd};
    map[0x09] = {.kind = Intercepted::Wbinvd};
    map[0x20] = {.kind = Intercepted::ReadCr, .tail = Tail::Register};
    map[0x21] = {.kind = Intercepted::ReadDr, .tail = Tail::Register};
    map[0x22] = {.kind = Intercepted::WriteCr, .tail = Tail::Register};
    map[0x23] = {.kind = Intercepted::WriteDr, .tail = Tail::Register};
    map[0x30] = {.kind = Intercepted::Wrmsr};
    map[0x31] = {.kind = Intercepted::Rdtsc};
    map[0x32] = {.kind = Intercepted::Rdmsr};
    map[0x33] = {.kind = Intercepted::Rdpmc};
    map[0xa2] = {.kind = Intercepted::Cpuid};
    map[0xaa] = {.kind = Intercepted::Rsm};
    return map;
}();

// 0F 01 with mod 3: the whole ModRM byte names the instruction. [amd/vol3] A.1, [intel/vol2] table A-6
Intercepted group_01_register(u8 modrm) {
    switch (modrm) {
    case 0xc1: return Intercepted::Vmcall;
    case 0xc8: return Intercepted::Monitor;
    case 0xc9: return Intercepted::Mwait;
    case 0xd1: return Intercepted::Xsetbv;
    case 0xd8: return Intercepted::Vmrun;
    case 0xd9: return Intercepted::Vmmcall;
    case 0xda: return Intercepted::Vmload;
    case 0xdb: return Intercepted::Vmsave;
    case 0xdc: return Intercepted::Stgi;
    case 0xdd: return Intercepted::Clgi;
    case 0xde: return Intercepted::Skinit;
    case 0xdf: return Intercepted::Invlpga;
    case 0xf9: return Intercepted::Rdtscp;
    case 0xfa: return Intercepted::Monitorx;
    case 0xfb: return Intercepted::Mwaitx;
    default: break;
    }
    unsigned const reg = (modrm >> 3) & 7U;
    if (reg == 4) return Intercepted::Smsw;
    return reg == 6 ? Intercepted::Lmsw : Intercepted::Unsupported;
}

constexpr Intercepted group_01_memory[8] = {Intercepted::Sgdt, Intercepted::Sidt,  Intercepted::Lgdt,
                                            Intercepted::Lidt, Intercepted::Smsw,  Intercepted::Unsupported,
                                            Intercepted::Lmsw, Intercepted::Invlpg};

// MOV to and from CR and DR ignores mod. LOCK MOV CR0 is AMD's other name for CR8. [amd/vol3] MOV CRn
void decode_control_register(u8 modrm, Prefixes const& prefixes, CpuMode mode, InterceptedInstruction& out) {
    out.reg = static_cast<u8>((modrm & 7U) | ((prefixes.rex & 1U) << 3));
    out.control = static_cast<u8>(((modrm >> 3) & 7U) | ((prefixes.rex & 4U) << 1));
    bool const is_cr = out.kind == Intercepted::ReadCr || out.kind == Intercepted::WriteCr;
    if (is_cr && prefixes.lock && out.control == 0) out.control = 8;
    out.operand_size = mode == CpuMode::Bits64 ? 8 : 4;
}

// False: the bytes ended.
bool decode_group_01(CodeCursor<true>& cursor, u8 modrm, Prefixes const& prefixes, CpuMode mode,
                     InterceptedInstruction& out) {
    if (modrm >= 0xc0) {
        out.kind = group_01_register(modrm);
        out.reg = static_cast<u8>((modrm & 7U) | ((prefixes.rex & 1U) << 3));
        return true;
    }
    out.kind = group_01_memory[(modrm >> 3) & 7U];
    out.has_memory = true;
    out.memory.segment = prefixes.segment;
    if (out.address_size == 2) return decode_memory_16(cursor, modrm, out.memory);
    return decode_memory(cursor, modrm, prefixes.rex, mode, out.address_size, prefixes.segment, out.memory);
}

// False: the bytes ended.
bool decode_tail(Tail tail, CodeCursor<true>& cursor, Prefixes const& prefixes, CpuMode mode,
                 InterceptedInstruction& out) {
    if (tail == Tail::None) return true;
    if (!cursor.has(1)) return false;
    u8 const byte = *cursor.at++;
    if (tail == Tail::Byte) {
        out.immediate = byte;
        return true;
    }
    if (tail == Tail::Group01) return decode_group_01(cursor, byte, prefixes, mode, out);
    decode_control_register(byte, prefixes, mode, out);
    return true;
}

bool exists(Entry const& entry, Prefixes const& prefixes, CpuMode mode) {
    if (entry.kind == Intercepted::Pause) return prefixes.repeat == Repeat::Rep && (prefixes.rex & 1U) == 0;
    return entry.kind != Intercepted::Into || mode != CpuMode::Bits64;
}

} // namespace

bool decode_intercepted(std::span<u8 const> bytes, CpuMode mode, InterceptedInstruction& out) {
    u8 const* const begin = bytes.data();
    std::size_t const available = std::min(bytes.size(), max_instruction_length);
    CodeCursor<true> cursor{begin, begin + available};
    Intercepted const at_end = available == max_instruction_length ? Intercepted::Unsupported : Intercepted::Truncated;
    auto const stop = [&out](Intercepted kind) {
        out.kind = kind;
        return false;
    };

    Prefixes prefixes;
    u8 byte = 0;
    do {
        if (!cursor.has(1)) return stop(at_end);
        byte = *cursor.at++;
    } while (byte >= 0x26 && byte != 0xf4 && prefixes.take(byte, mode));
    Entry const* entry = &one_byte.data()[byte];
    if (byte == 0x0f) {
        if (!cursor.has(1)) return stop(at_end);
        entry = &two_byte.data()[*cursor.at++];
    }
    if (entry->kind == Intercepted::Unsupported && entry->tail == Tail::None) return stop(Intercepted::Unsupported);
    if (!exists(*entry, prefixes, mode)) return stop(Intercepted::Unsupported);

    out.kind = entry->kind;
    out.reg = 0;
    out.control = 0;
    out.immediate = 0;
    out.has_memory = false;
    out.operand_size = entry->byte ? 1 : prefixes.size_of_operand(mode);
    out.address_size = prefixes.size_of_address(mode);
    out.repeat = prefixes.repeat;
    out.segment = prefixes.segment;
    if (!decode_tail(entry->tail, cursor, prefixes, mode, out)) return stop(at_end);
    out.length = static_cast<u8>(cursor.at - begin);
    return out.kind != Intercepted::Unsupported;
}

} // namespace vm
