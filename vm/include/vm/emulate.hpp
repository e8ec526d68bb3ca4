#pragma once
// Carries out a decoded instruction whose memory operand is a device's.
// Not supported: atomicity towards other processors (LOCK and XCHG are as atomic as the device's caller makes them),
// faults on the way (the processor has made its checks before it reported the access), a MOVS between two devices.
#include <concepts>
#include <vm/decoder.hpp>

namespace vm {

struct EmulationContext {
    std::span<u64, 16> gpr; // in encoding order: rAX, rCX, rDX, rBX, rSP, rBP, rSI, rDI, R8..R15
    u64& rflags;
};

enum class Emulated : u8 {
    Done,  // step over the instruction
    Again, // one element of a repeated string instruction: call again for the next address or let the guest run it
    Unsupported, // nothing has happened
    RamFault,    // the other operand of a MOVS is no RAM that we may use; nothing has happened
};

// read and write touch the device at the address of the exit, once; update reads it and writes what its argument makes
// of that, if it returns true, with no other access in between. The others are for the second operand of MOVS
// alone, at an offset within a segment, and return false when there is no such RAM.
template <typename A>
concept MmioAccess = requires(A& access, u64 value, u64& out, unsigned size, SegmentRegister segment) {
    { access.read(size) } -> std::same_as<u64>;
    access.write(size, value);
    access.update(size, [](u64, u64&) { return true; });
    { access.is_write() } -> std::same_as<bool>; // what the exit said: the device is the destination of a MOVS
    { access.read_ram(segment, value, size, out) } -> std::same_as<bool>;
    { access.can_write_ram(segment, value, size) } -> std::same_as<bool>;
    { access.write_ram(segment, value, size, value) } -> std::same_as<bool>;
};

constexpr u64 rflags_cf = 1U << 0;
constexpr u64 rflags_pf = 1U << 2;
constexpr u64 rflags_af = 1U << 4;
constexpr u64 rflags_zf = 1U << 6;
constexpr u64 rflags_sf = 1U << 7;
constexpr u64 rflags_df = 1U << 10;
constexpr u64 rflags_of = 1U << 11;

struct AluResult {
    u64 value;
    u64 rflags;
};
// Add..Test, Inc, Dec, Not, Neg, Bt..Btc of `size` bytes: destination op source. Bits above the size are ignored on the
// way in and zero on the way out. For Bt.. the source is the bit number, taken modulo the size.
AluResult alu(Kind kind, unsigned size, u64 destination, u64 source, u64 rflags);

constexpr u64 sign_extend(u64 value, unsigned bytes) {
    unsigned const shift = 64 - bytes * 8;
    return static_cast<u64>(static_cast<lib::i64>(value << shift) >> shift);
}

inline u64 read_register(std::span<u64 const, 16> gpr, u8 number, unsigned size, bool high) {
    u64 const value = gpr.data()[number & 15U];
    return (high ? value >> 8 : value) & size_mask(size);
}

// 32-bit results clear the upper half, smaller ones leave the rest alone. [intel/vol1] 3.4.1.1
inline void write_register(std::span<u64, 16> gpr, u8 number, unsigned size, bool high, u64 value) {
    u64& target = gpr.data()[number & 15U];
    if (size >= 4) {
        target = value & size_mask(size);
        return;
    }
    unsigned const shift = high ? 8 : 0;
    u64 const mask = size_mask(size) << shift;
    target = (target & ~mask) | ((value << shift) & mask);
}

// What a device driver's loads and stores are: they need no flags and touch the device once.
constexpr bool is_move(Instruction const& instruction) {
    return instruction.kind == Kind::Mov || instruction.kind == Kind::Movzx || instruction.kind == Kind::Movsx;
}

// One of those.
template <typename Access>
[[gnu::always_inline]] inline void emulate_move(Instruction const& instruction, std::span<u64, 16> gpr,
                                                Access& access) {
    unsigned const size = instruction.memory_size;
    if (instruction.form == Form::RegisterMemory) {
        u64 value = access.read(size);
        if (instruction.kind == Kind::Movzx)
            value &= size_mask(size);
        else if (instruction.kind == Kind::Movsx)
            value = sign_extend(value, size);
        write_register(gpr, instruction.reg, instruction.operand_size, instruction.high_byte, value);
    } else if (instruction.form == Form::MemoryRegister) {
        access.write(size, read_register(gpr, instruction.reg, size, instruction.high_byte));
    } else {
        access.write(size, instruction.immediate & size_mask(size));
    }
}

namespace detail {

inline void step_index(EmulationContext const& context, u8 number, Instruction const& instruction) {
    unsigned const address_size = instruction.memory.address_size;
    u64 const step = instruction.memory_size;
    u64 const value = context.gpr[number];
    write_register(context.gpr, number, address_size, false,
                   (context.rflags & rflags_df) != 0 ? value - step : value + step);
}

template <MmioAccess Access>
bool move_element(Instruction const& instruction, EmulationContext const& context, Access& access) {
    unsigned const size = instruction.memory_size;
    u64 const mask = size_mask(instruction.memory.address_size);
    if (access.is_write()) {
        u64 value = 0;
        if (!access.read_ram(effective_segment(instruction.memory), context.gpr[6] & mask, size, value)) return false;
        access.write(size, value);
        return true;
    }
    // Asked first: reading a device can have side effects, and the instruction would run again after a fault.
    u64 const target = context.gpr[7] & mask;
    if (!access.can_write_ram(SegmentRegister::ES, target, size)) return false;
    return access.write_ram(SegmentRegister::ES, target, size, access.read(size));
}

// One element of STOS, LODS or MOVS.
template <MmioAccess Access>
Emulated emulate_string(Instruction const& instruction, EmulationContext const& context, Access& access) {
    unsigned const size = instruction.memory_size;
    unsigned const address_size = instruction.memory.address_size;
    bool const repeated = instruction.repeat != Repeat::None;
    u64 const count = context.gpr[1] & size_mask(address_size);
    if (repeated && count == 0) return Emulated::Done;

    if (instruction.kind == Kind::Stos)
        access.write(size, context.gpr[0] & size_mask(size));
    else if (instruction.kind == Kind::Lods)
        write_register(context.gpr, 0, size, false, access.read(size));
    else if (!move_element(instruction, context, access))
        return Emulated::RamFault;

    if (instruction.kind != Kind::Stos) step_index(context, 6, instruction);
    if (instruction.kind != Kind::Lods) step_index(context, 7, instruction);
    if (!repeated) return Emulated::Done;
    write_register(context.gpr, 1, address_size, false, count - 1);
    return count == 1 ? Emulated::Done : Emulated::Again;
}

// CMPXCHG writes in both cases, as the processor does. [intel/vol2] CMPXCHG
template <MmioAccess Access>
void compare_exchange(Instruction const& instruction, EmulationContext const& context, Access& access) {
    unsigned const size = instruction.memory_size;
    access.update(size, [&](u64 read, u64& value) {
        u64 const old = read & size_mask(size);
        u64 const expected = read_register(context.gpr, 0, size, false);
        context.rflags = alu(Kind::Cmp, size, expected, old, context.rflags).rflags;
        value = old == expected ? read_register(context.gpr, instruction.reg, size, instruction.high_byte) : old;
        if (old != expected) write_register(context.gpr, 0, size, false, old);
        return true;
    });
}

template <MmioAccess Access>
void arithmetic(Instruction const& instruction, EmulationContext const& context, Access& access) {
    unsigned const size = instruction.memory_size;
    bool const is_compare =
        instruction.kind == Kind::Cmp || instruction.kind == Kind::Test || instruction.kind == Kind::Bt;
    u64 const other = instruction.has_immediate()
                          ? instruction.immediate
                          : read_register(context.gpr, instruction.reg, size, instruction.high_byte);
    if (instruction.form == Form::RegisterMemory) {
        AluResult const result = alu(instruction.kind, size, other, access.read(size), context.rflags);
        context.rflags = result.rflags;
        if (!is_compare) write_register(context.gpr, instruction.reg, size, instruction.high_byte, result.value);
        return;
    }
    if (is_compare) {
        context.rflags = alu(instruction.kind, size, access.read(size), other, context.rflags).rflags;
        return;
    }
    access.update(size, [&](u64 old, u64& value) {
        AluResult const result = alu(instruction.kind, size, old, other, context.rflags);
        context.rflags = result.rflags;
        value = result.value;
        return true;
    });
}

} // namespace detail

template <MmioAccess Access>
Emulated emulate(Instruction const& instruction, EmulationContext const& context, Access& access) {
    unsigned const size = instruction.memory_size;
    switch (instruction.kind) {
    case Kind::Mov:
    case Kind::Movzx:
    case Kind::Movsx: emulate_move(instruction, context.gpr, access); return Emulated::Done;
    case Kind::Xchg: {
        access.update(size, [&](u64 old, u64& value) {
            value = read_register(context.gpr, instruction.reg, size, instruction.high_byte);
            write_register(context.gpr, instruction.reg, size, instruction.high_byte, old);
            return true;
        });
        return Emulated::Done;
    }
    case Kind::Cmpxchg: detail::compare_exchange(instruction, context, access); return Emulated::Done;
    case Kind::Add:
    case Kind::Or:
    case Kind::Adc:
    case Kind::Sbb:
    case Kind::And:
    case Kind::Sub:
    case Kind::Xor:
    case Kind::Cmp:
    case Kind::Test:
    case Kind::Inc:
    case Kind::Dec:
    case Kind::Not:
    case Kind::Neg:
    case Kind::Bt:
    case Kind::Bts:
    case Kind::Btr:
    case Kind::Btc: detail::arithmetic(instruction, context, access); return Emulated::Done;
    case Kind::Stos:
    case Kind::Lods:
    case Kind::Movs: return detail::emulate_string(instruction, context, access);
    case Kind::Unsupported:
    case Kind::Truncated: break;
    }
    return Emulated::Unsupported;
}

} // namespace vm
