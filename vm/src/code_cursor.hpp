// SPDX-License-Identifier: MIT
#pragma once
// What both decoders share: a cursor that never passes the end, and the ModRM operand.
#include <bit>
#include <vm/decoder.hpp>

namespace vm {

inline constexpr std::size_t max_instruction_length = 15; // [intel/vol2] 2.3.11

// Raw pointers on purpose: `end` is asked for before each read. Unchecked is for a caller that has made sure that the
// longest possible instruction is there.
template <bool Checked> struct CodeCursor {
    u8 const* at;
    u8 const* end;

    [[gnu::always_inline]] bool has(std::size_t bytes) const {
        return !Checked || static_cast<std::size_t>(end - at) >= bytes;
    }
    // Little-endian and sign-extended; the caller has asked has().
    template <typename Signed> [[gnu::always_inline]] u64 take() {
        Signed value;
        __builtin_memcpy(&value, at, sizeof value);
        at += sizeof value;
        return static_cast<u64>(static_cast<lib::i64>(value));
    }
};

// 16-bit addressing: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP, BX. [intel/vol2] table 2-1
inline constexpr u8 base_of_16[8] = {3, 3, 5, 5, 6, 7, 5, 3};
inline constexpr u8 index_of_16[8] = {6, 7, 6, 7, no_register, no_register, no_register, no_register};

inline bool decode_memory_16(CodeCursor<true>& cursor, u8 modrm, MemoryOperand& memory) {
    unsigned const mod = modrm >> 6;
    unsigned const rm = modrm & 7U;
    memory.base = base_of_16[rm];
    memory.index = index_of_16[rm];
    memory.shift = 0;
    memory.address_size = 2;
    memory.rip_relative = false;
    memory.displacement = 0;
    if (mod == 1) {
        if (!cursor.has(1)) return false;
        memory.displacement = cursor.take<signed char>();
    } else if (mod == 2 || rm == 6) {
        if (!cursor.has(2)) return false;
        memory.displacement = cursor.take<short>();
        if (mod == 0) memory.base = no_register;
    }
    return true;
}

// The operand of a ModRM byte whose mod is not 3. False: the bytes ended.
template <bool Checked>
[[gnu::always_inline]] inline bool decode_memory(CodeCursor<Checked>& cursor, u8 modrm, unsigned rex, CpuMode mode,
                                                 u8 address_size, SegmentRegister segment, MemoryOperand& memory) {
    unsigned const mod = modrm >> 6;
    unsigned base = modrm & 7U;
    // The bytes of MemoryParts, made in a register and stored at once.
    u64 parts = (u64{address_size} << 24) | (static_cast<u64>(segment) << 32);
    u64 index = no_register;
    u64 without_base = no_register;
    if (mode == CpuMode::Bits64) without_base |= u64{1} << 40; // rip_relative
    if (base == 4) [[unlikely]] {
        if (!cursor.has(1)) return false;
        unsigned const byte = *cursor.at++;
        base = byte & 7U;
        parts |= (byte >> 6) << 16;
        unsigned const number = ((byte >> 3) & 7U) | ((rex & 2U) << 2);
        if (number != 4) index = number; // 100 without REX.X: no index
        without_base = no_register;
    }
    u64 displacement = 0;
    u64 number = base | ((rex & 1U) << 3);
    if (mod == 1) {
        if (!cursor.has(1)) return false;
        displacement = cursor.template take<signed char>();
    } else if (mod == 2 || base == 5) {
        if (!cursor.has(4)) return false;
        displacement = cursor.template take<int>();
        if (mod == 0) number = without_base;
    }
    static_cast<MemoryParts&>(memory) = std::bit_cast<MemoryParts>(parts | (index << 8) | number);
    memory.displacement = displacement;
    return true;
}

} // namespace vm
