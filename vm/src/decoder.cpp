// SPDX-License-Identifier: MIT
#include "code_cursor.hpp"
#include "prefixes.hpp"

#include <algorithm>
#include <array>

namespace vm {
namespace {

// One opcode. `special` stands for all that is not "opcode, ModRM, immediate": prefixes, 0F, strings, A0..A3, groups.
enum class Special : u8 {
    None,
    Group, // `detail` indexes groups
    Prefix,
    Escape,
    Escape38, // 0F 38
    String,
    Offset,      // A0..A3
    Stack,       // PUSH and POP without ModRM
    StackMemory, // with ModRM
    Vector,      // SSE moves
    Pair,        // CMPXCHG8B, CMPXCHG16B
    Movsxd,      // 64-bit mode only
    MovntiOnly,  // no 16-bit form
};

enum class Immediate : u8 { None, Byte, Full };

// `fixed` is the first half of Operation as a number; `vary` times the operand size adds the sizes that depend on it.
struct Opcode {
    u32 fixed = 0; // kind, form, operand_size, memory_size
    u16 vary = 0;  // operand_size, memory_size
    Special special = Special::None;
    u8 detail = 0; // the group, or an Immediate

    constexpr Kind kind() const { return static_cast<Kind>(fixed & 0xffU); }
    constexpr Form form() const { return static_cast<Form>((fixed >> 8) & 0xffU); }
    constexpr Immediate immediate() const { return static_cast<Immediate>(detail); }
};
static_assert(sizeof(Opcode) == 8);

using Map = std::array<Opcode, 256>;
enum Group : u8 {
    GroupAlu8,
    GroupAlu,
    GroupAluByte,
    GroupC6,
    GroupC7,
    GroupF6,
    GroupF7,
    GroupFE,
    GroupFF,
    GroupBA,
    Group8F,
    Group0FC7
};

constexpr Kind alu_kinds[8] = {Kind::Add, Kind::Or, Kind::Adc, Kind::Sbb, Kind::And, Kind::Sub, Kind::Xor, Kind::Cmp};

constexpr Opcode opcode_of(Kind kind, Form form, unsigned fixed_sizes, unsigned vary, Immediate immediate) {
    return {.fixed = static_cast<u32>(kind) | (static_cast<u32>(form) << 8) | (fixed_sizes << 16),
            .vary = static_cast<u16>(vary),
            .detail = static_cast<u8>(immediate)};
}
constexpr Opcode sized(Kind kind, Form form, bool byte, Immediate immediate = Immediate::None) {
    return opcode_of(kind, form, byte ? 0x0101 : 0, byte ? 0 : 0x0101, immediate);
}
// MOVZX, MOVSX: the memory size is fixed.
constexpr Opcode extended(Kind kind, unsigned memory_size) {
    return opcode_of(kind, Form::RegisterMemory, memory_size << 8, 0x0001, Immediate::None);
}
constexpr Opcode special(Special what, u8 detail = 0) { return {.special = what, .detail = detail}; }
constexpr Opcode with(Opcode opcode, Special what) {
    opcode.special = what;
    return opcode;
}

constexpr Map one_byte = [] {
    Map map{};
    for (unsigned i = 0; i < 8; ++i)
        for (unsigned form = 0; form < 2; ++form) {
            Form const direction = form == 0 ? Form::MemoryRegister : Form::RegisterMemory;
            map[i * 8 + form * 2] = sized(alu_kinds[i], direction, true);
            map[i * 8 + form * 2 + 1] = sized(alu_kinds[i], direction, false);
        }
    for (unsigned i = 0; i < 16; ++i)
        map[0x40 + i] = special(Special::Prefix);
    for (unsigned const byte : {0x26U, 0x2eU, 0x36U, 0x3eU, 0x64U, 0x65U, 0x66U, 0x67U, 0xf0U, 0xf2U, 0xf3U})
        map[byte] = special(Special::Prefix);
    for (unsigned i = 0; i < 8; ++i) {
        map[0x50 + i] = with(sized(Kind::Push, Form::RegisterOnly, false), Special::Stack);
        map[0x58 + i] = with(sized(Kind::Pop, Form::RegisterOnly, false), Special::Stack);
    }
    map[0x68] = with(sized(Kind::Push, Form::ImmediateOnly, false, Immediate::Full), Special::Stack);
    map[0x6a] = with(sized(Kind::Push, Form::ImmediateOnly, false, Immediate::Byte), Special::Stack);
    map[0x8f] = special(Special::Group, Group8F);
    map[0x0f] = special(Special::Escape);
    map[0x63] = with(sized(Kind::Movsx, Form::RegisterMemory, false), Special::Movsxd);
    map[0x80] = special(Special::Group, GroupAlu8);
    map[0x81] = special(Special::Group, GroupAlu);
    map[0x83] = special(Special::Group, GroupAluByte);
    for (unsigned i = 0; i < 2; ++i) { // even: 8 bits
        bool const byte = i == 0;
        map[0x84 + i] = sized(Kind::Test, Form::MemoryRegister, byte);
        map[0x86 + i] = sized(Kind::Xchg, Form::MemoryRegister, byte);
        map[0x88 + i] = sized(Kind::Mov, Form::MemoryRegister, byte);
        map[0x8a + i] = sized(Kind::Mov, Form::RegisterMemory, byte);
        map[0xa0 + i] = sized(Kind::Mov, Form::RegisterMemory, byte);
        map[0xa2 + i] = sized(Kind::Mov, Form::MemoryRegister, byte);
        map[0xa4 + i] = sized(Kind::Movs, Form::MemoryOnly, byte);
        map[0xa6 + i] = sized(Kind::Cmps, Form::MemoryOnly, byte);
        map[0xaa + i] = sized(Kind::Stos, Form::MemoryRegister, byte);
        map[0xac + i] = sized(Kind::Lods, Form::RegisterMemory, byte);
        map[0xae + i] = sized(Kind::Scas, Form::RegisterMemory, byte);
        map[0xa0 + i].special = map[0xa2 + i].special = Special::Offset;
        for (unsigned const string : {0xa4U, 0xa6U, 0xaaU, 0xacU, 0xaeU})
            map[string + i].special = Special::String;
        map[0xc6 + i] = special(Special::Group, byte ? GroupC6 : GroupC7);
        map[0xf6 + i] = special(Special::Group, byte ? GroupF6 : GroupF7);
        map[0xfe + i] = special(Special::Group, byte ? GroupFE : GroupFF);
    }
    return map;
}();

constexpr Map two_byte = [] {
    Map map{};
    map[0xa3] = sized(Kind::Bt, Form::MemoryRegister, false);
    map[0xab] = sized(Kind::Bts, Form::MemoryRegister, false);
    map[0xb3] = sized(Kind::Btr, Form::MemoryRegister, false);
    map[0xbb] = sized(Kind::Btc, Form::MemoryRegister, false);
    map[0xb0] = sized(Kind::Cmpxchg, Form::MemoryRegister, true);
    map[0xb1] = sized(Kind::Cmpxchg, Form::MemoryRegister, false);
    map[0xba] = special(Special::Group, GroupBA);
    map[0xc0] = sized(Kind::Xadd, Form::MemoryRegister, true);
    map[0xc1] = sized(Kind::Xadd, Form::MemoryRegister, false);
    map[0xc7] = special(Special::Group, Group0FC7);
    map[0x38] = special(Special::Escape38);
    for (unsigned const byte : {0x10U, 0x11U, 0x12U, 0x13U, 0x16U, 0x17U, 0x28U, 0x29U, 0x2bU, 0x6eU, 0x6fU, 0x7eU,
                                0x7fU, 0xd6U, 0xe7U, 0xf0U})
        map[byte] = special(Special::Vector);
    map[0xb6] = extended(Kind::Movzx, 1);
    map[0xb7] = extended(Kind::Movzx, 2);
    map[0xbe] = extended(Kind::Movsx, 1);
    map[0xbf] = extended(Kind::Movsx, 2);
    map[0xc3] = sized(Kind::Mov, Form::MemoryRegister, false); // MOVNTI
    map[0xc3].special = Special::MovntiOnly;
    return map;
}();

// By the reg field of ModRM. [intel/vol2] table A-6
constexpr std::array<std::array<Opcode, 8>, 12> groups = [] {
    std::array<std::array<Opcode, 8>, 12> all{};
    for (unsigned i = 0; i < 8; ++i) {
        all[GroupAlu8][i] = sized(alu_kinds[i], Form::MemoryImmediate, true, Immediate::Byte);
        all[GroupAlu][i] = sized(alu_kinds[i], Form::MemoryImmediate, false, Immediate::Full);
        all[GroupAluByte][i] = sized(alu_kinds[i], Form::MemoryImmediate, false, Immediate::Byte);
    }
    for (unsigned i = 0; i < 2; ++i) {
        bool const byte = i == 0;
        Immediate const immediate = byte ? Immediate::Byte : Immediate::Full;
        all[GroupC6 + i][0] = sized(Kind::Mov, Form::MemoryImmediate, byte, immediate);
        all[GroupF6 + i][0] = sized(Kind::Test, Form::MemoryImmediate, byte, immediate);
        all[GroupF6 + i][2] = sized(Kind::Not, Form::MemoryOnly, byte);
        all[GroupF6 + i][3] = sized(Kind::Neg, Form::MemoryOnly, byte);
        all[GroupFE + i][0] = sized(Kind::Inc, Form::MemoryOnly, byte);
        all[GroupFE + i][1] = sized(Kind::Dec, Form::MemoryOnly, byte);
    }
    all[GroupFF][6] = with(sized(Kind::Push, Form::MemoryOnly, false), Special::StackMemory);
    all[Group8F][0] = with(sized(Kind::Pop, Form::MemoryOnly, false), Special::StackMemory);
    all[Group0FC7][1] = with(sized(Kind::CmpxchgPair, Form::MemoryOnly, false), Special::Pair);
    all[GroupBA][4] = sized(Kind::Bt, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][5] = sized(Kind::Bts, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][6] = sized(Kind::Btr, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][7] = sized(Kind::Btc, Form::MemoryImmediate, false, Immediate::Byte);
    return all;
}();

// The SSE moves: the mandatory prefix tells what the opcode is. 66 does not count beside F2 or F3.
// [intel/vol2] table A-3, 2.1.2
enum class Mandatory : u8 { None, P66, PF3, PF2 };

constexpr Opcode vector_move(Kind kind, Form form, unsigned memory_size) {
    return opcode_of(kind, form, 0x10 | memory_size << 8, 0, Immediate::None);
}

Opcode vector_opcode(u8 byte, Prefixes const& prefixes) {
    Mandatory const mandatory = prefixes.repeat == Repeat::Rep     ? Mandatory::PF3
                                : prefixes.repeat == Repeat::Repne ? Mandatory::PF2
                                : prefixes.operand_size            ? Mandatory::P66
                                                                   : Mandatory::None;
    bool const is_packed = mandatory == Mandatory::None || mandatory == Mandatory::P66;
    constexpr Form load = Form::RegisterMemory, store = Form::MemoryRegister;
    unsigned const wide = (prefixes.rex & 8U) != 0 ? 8 : 4;
    switch (byte) {
    case 0x10: // MOVUPS, MOVUPD, MOVSS, MOVSD
    case 0x11: {
        unsigned const size = is_packed ? 16 : mandatory == Mandatory::PF3 ? 4 : 8;
        return vector_move(Kind::MoveVector, byte == 0x10 ? load : store, size);
    }
    case 0x12: // MOVLPS, MOVLPD
    case 0x13:
        if (is_packed) return vector_move(Kind::MoveVectorLow, byte == 0x12 ? load : store, 8);
        break;
    case 0x16: // MOVHPS, MOVHPD
    case 0x17:
        if (is_packed) return vector_move(Kind::MoveVectorHigh, byte == 0x16 ? load : store, 8);
        break;
    case 0x28: // MOVAPS, MOVAPD
    case 0x29:
        if (is_packed) return vector_move(Kind::MoveVectorAligned, byte == 0x28 ? load : store, 16);
        break;
    case 0x2b: // MOVNTPS, MOVNTPD
        if (is_packed) return vector_move(Kind::MoveVectorAligned, store, 16);
        break;
    case 0x6e: // MOVD, MOVQ
        if (mandatory == Mandatory::P66) return vector_move(Kind::MoveVector, load, wide);
        break;
    case 0x7e:
        if (mandatory == Mandatory::P66) return vector_move(Kind::MoveVector, store, wide);
        if (mandatory == Mandatory::PF3) return vector_move(Kind::MoveVector, load, 8);
        break;
    case 0x6f: // MOVDQA, MOVDQU
    case 0x7f:
        if (mandatory == Mandatory::P66) return vector_move(Kind::MoveVectorAligned, byte == 0x6f ? load : store, 16);
        if (mandatory == Mandatory::PF3) return vector_move(Kind::MoveVector, byte == 0x6f ? load : store, 16);
        break;
    case 0xd6: // MOVQ
        if (mandatory == Mandatory::P66) return vector_move(Kind::MoveVector, store, 8);
        break;
    case 0xe7: // MOVNTDQ
        if (mandatory == Mandatory::P66) return vector_move(Kind::MoveVectorAligned, store, 16);
        break;
    case 0xf0: // LDDQU
        if (mandatory == Mandatory::PF2) return vector_move(Kind::MoveVector, load, 16);
        break;
    default: break;
    }
    return {};
}

// 0F 38: MOVBE and MOVNTDQA. [intel/vol2] table A-4
Opcode opcode_38(u8 byte, Prefixes const& prefixes) {
    if (byte == 0x2a && prefixes.operand_size && prefixes.repeat == Repeat::None)
        return vector_move(Kind::MoveVectorAligned, Form::RegisterMemory, 16);
    if (prefixes.repeat != Repeat::None) return {}; // CRC32
    if (byte == 0xf0) return sized(Kind::Movbe, Form::RegisterMemory, false);
    if (byte == 0xf1) return sized(Kind::Movbe, Form::MemoryRegister, false);
    return {};
}

// Sizes, register and prefixes in one store. `reg` is the reg field of ModRM, not extended.
[[gnu::always_inline]] inline void fill_operation(Opcode const& opcode, unsigned size, unsigned reg, unsigned rex,
                                                  Repeat repeat, bool lock, Instruction& out) {
    u64 const sizes = opcode.fixed + (u64{opcode.vary} * size << 16);
    u64 number = reg | ((rex & 4U) << 1);
    // SPL..DIL need any REX; without it 4..7 are AH..BH. [intel/vol2] table 3-1
    if ((sizes & 0x010000) != 0) [[unlikely]]
        if (rex == 0 && reg >= 4) number = (reg - 4) | 0x100;
    static_cast<Operation&>(out) = std::bit_cast<Operation>(sizes | (number << 32) | (static_cast<u64>(repeat) << 48) |
                                                            (u64{lock ? 1U : 0U} << 56));
}

// Strings and A0..A3: no ModRM, the register is the accumulator. False: the bytes ended.
bool finish_implicit(Opcode const& opcode, Prefixes const& prefixes, CpuMode mode, CodeCursor<true>& cursor,
                     Instruction& out) {
    fill_operation(opcode, prefixes.size_of_operand(mode), 0, 0, prefixes.repeat, prefixes.lock, out);
    out.immediate = 0;
    u8 const address_size = prefixes.size_of_address(mode);
    static_cast<MemoryParts&>(out.memory) = {.base = no_register,
                                             .index = no_register,
                                             .shift = 0,
                                             .address_size = address_size,
                                             .segment = prefixes.segment,
                                             .rip_relative = false,
                                             .reserved = 0};
    out.memory.displacement = 0;
    if (opcode.special == Special::String) {
        bool const is_target = opcode.kind() == Kind::Stos || opcode.kind() == Kind::Scas;
        out.memory.base = is_target ? 7 : 6;                     // rDI, else rSI; Movs and Cmps have both
        if (is_target) out.memory.segment = SegmentRegister::ES; // cannot be overridden
        return true;
    }
    if (!cursor.has(address_size)) return false;
    __builtin_memcpy(&out.memory.displacement, cursor.at, address_size);
    cursor.at += address_size;
    return true;
}

// False: the bytes ended.
template <bool Checked>
[[gnu::always_inline]] inline bool take_immediate(Opcode const& opcode, CodeCursor<Checked>& cursor, Instruction& out) {
    if (opcode.immediate() == Immediate::Byte) {
        if (!cursor.has(1)) return false;
        out.immediate = cursor.template take<signed char>();
    } else if (out.operand_size == 2) {
        if (!cursor.has(2)) return false;
        out.immediate = cursor.template take<short>();
    } else {
        if (!cursor.has(4)) return false;
        out.immediate = cursor.template take<int>();
    }
    return true;
}

// PUSH and POP of a register or an immediate: their memory operand is the stack's. False: the bytes ended.
bool finish_stack(Opcode const& opcode, Prefixes const& prefixes, CpuMode mode, CodeCursor<true>& cursor,
                  Instruction& out) {
    unsigned const number = cursor.at[-1] & 7U;
    fill_operation(opcode, prefixes.size_of_stack_operand(mode), 0, 0, Repeat::None, prefixes.lock, out);
    if (opcode.form() == Form::RegisterOnly) out.reg = static_cast<u8>(number | ((prefixes.rex & 1U) << 3));
    static_cast<MemoryParts&>(out.memory) = {.base = no_register,
                                             .index = no_register,
                                             .shift = 0,
                                             .address_size = prefixes.size_of_address(mode),
                                             .segment = SegmentRegister::SS,
                                             .rip_relative = false,
                                             .reserved = 0};
    out.memory.displacement = 0;
    out.immediate = 0;
    return opcode.immediate() == Immediate::None || take_immediate(opcode, cursor, out);
}

bool is_usable(Opcode const& opcode, Prefixes const& prefixes, CpuMode mode) {
    if (opcode.special == Special::Movsxd) return mode == CpuMode::Bits64; // ARPL elsewhere
    return opcode.special != Special::MovntiOnly || !prefixes.operand_size;
}

bool stop(Kind kind, Instruction& out) {
    out.kind = kind;
    return false;
}

// All instructions, all prefixes, bytes that may end anywhere.
[[gnu::noinline]] bool decode_any(std::span<u8 const> bytes, CpuMode mode, Instruction& out) {
    u8 const* const begin = bytes.data();
    std::size_t const available = std::min(bytes.size(), max_instruction_length);
    CodeCursor<true> cursor{begin, begin + available};
    // An instruction longer than 15 bytes is none; shorter input may just be cut.
    Kind const at_end = available == max_instruction_length ? Kind::Unsupported : Kind::Truncated;

    Prefixes prefixes;
    u8 byte = 0;
    do {
        if (!cursor.has(1)) return stop(at_end, out);
        byte = *cursor.at++;
    } while (prefixes.take(byte, mode));
    Opcode const* opcode = &one_byte.data()[byte];
    Opcode found;
    if (opcode->special == Special::Prefix) return stop(Kind::Unsupported, out); // INC and DEC, where 40..4F are no REX
    if (opcode->special == Special::Escape) {
        if (!cursor.has(1)) return stop(at_end, out);
        byte = *cursor.at++;
        opcode = &two_byte.data()[byte];
    }
    if (opcode->special == Special::Vector) {
        found = vector_opcode(byte, prefixes);
        opcode = &found;
    } else if (opcode->special == Special::Escape38) {
        if (!cursor.has(1)) return stop(at_end, out);
        found = opcode_38(*cursor.at++, prefixes);
        opcode = &found;
    }
    if (opcode->special == Special::Stack) {
        if (!finish_stack(*opcode, prefixes, mode, cursor, out)) return stop(at_end, out);
        out.length = static_cast<u8>(cursor.at - begin);
        return true;
    }
    if (opcode->special == Special::String || opcode->special == Special::Offset) {
        if (!finish_implicit(*opcode, prefixes, mode, cursor, out)) return stop(at_end, out);
        out.length = static_cast<u8>(cursor.at - begin);
        return true;
    }
    if (opcode->special != Special::Group && opcode->kind() == Kind::Unsupported) return stop(Kind::Unsupported, out);

    if (!cursor.has(1)) return stop(at_end, out);
    u8 const modrm = *cursor.at++;
    unsigned const reg = (modrm >> 3) & 7U;
    if (opcode->special == Special::Group) opcode = &groups.data()[opcode->detail].data()[reg];
    if (opcode->kind() == Kind::Unsupported || !is_usable(*opcode, prefixes, mode) || modrm >= 0xc0)
        return stop(Kind::Unsupported, out);

    u8 size = prefixes.size_of_operand(mode);
    if (opcode->special == Special::MovntiOnly) size = std::max<u8>(4, size);
    if (opcode->special == Special::StackMemory) size = prefixes.size_of_stack_operand(mode);
    if (opcode->special == Special::Pair) size = (prefixes.rex & 8U) != 0 ? 16 : 8;
    fill_operation(*opcode, size, reg, prefixes.rex, prefixes.repeat, prefixes.lock, out);
    if (opcode->special == Special::Movsxd) out.memory_size = std::min<u8>(4, out.operand_size);
    u8 const address_size = prefixes.size_of_address(mode);
    out.memory.segment = prefixes.segment;
    bool const complete = address_size == 2 ? decode_memory_16(cursor, modrm, out.memory)
                                            : decode_memory(cursor, modrm, prefixes.rex, mode, address_size,
                                                            prefixes.segment, out.memory);
    if (!complete) return stop(at_end, out);
    out.immediate = 0;
    if (opcode->immediate() != Immediate::None && !take_immediate(*opcode, cursor, out)) return stop(at_end, out);
    out.length = static_cast<u8>(cursor.at - begin);
    return true;
}

// The common case straight through: an operand of 16 bits, as of virtio's doorbells, or not; at most a REX prefix, one
// or two opcode bytes, ModRM; `bytes` is long enough for any of these. Everything else goes the long way round.
template <CpuMode Mode> [[gnu::always_inline]] inline bool decode_plain(std::span<u8 const> bytes, Instruction& out) {
    CodeCursor<false> cursor{bytes.data(), nullptr};
    unsigned rex = 0, size = 4;
    unsigned byte = *cursor.at++;
    if (Mode == CpuMode::Bits64 && byte == 0x66) {
        size = 2;
        byte = *cursor.at++;
    }
    if (Mode == CpuMode::Bits64 && (byte & 0xf0U) == 0x40) {
        rex = byte;
        byte = *cursor.at++;
    }
    Opcode const* opcode = &one_byte.data()[byte];
    u8 modrm = *cursor.at++;
    if (opcode->special != Special::None) {
        if (opcode->special == Special::Escape) {
            opcode = &two_byte.data()[modrm];
            modrm = *cursor.at++;
        }
        if (opcode->special == Special::Group) opcode = &groups.data()[opcode->detail].data()[(modrm >> 3) & 7U];
        if (opcode->special != Special::None) return decode_any(bytes, Mode, out);
    }
    if (opcode->kind() == Kind::Unsupported || modrm >= 0xc0) [[unlikely]]
        return stop(Kind::Unsupported, out);

    bool const wide = Mode == CpuMode::Bits64;
    fill_operation(*opcode, (rex & 8U) != 0 ? 8U : size, (modrm >> 3) & 7U, rex, Repeat::None, false, out);
    decode_memory(cursor, modrm, rex, Mode, wide ? 8 : 4, SegmentRegister::None, out.memory);
    out.immediate = 0;
    if (opcode->immediate() != Immediate::None) take_immediate(*opcode, cursor, out);
    out.length = static_cast<u8>(cursor.at - bytes.data());
    return true;
}

} // namespace

bool decode(std::span<u8 const> bytes, CpuMode mode, Instruction& out) {
    constexpr std::size_t longest_plain = 14; // 66, REX, 0F, opcode, ModRM, SIB, displacement, immediate
    if (bytes.size() >= longest_plain) [[likely]] {
        if (mode == CpuMode::Bits64) [[likely]]
            return decode_plain<CpuMode::Bits64>(bytes, out);
        if (mode == CpuMode::Bits32) return decode_plain<CpuMode::Bits32>(bytes, out);
    }
    return decode_any(bytes, mode, out);
}

u64 effective_address(MemoryOperand const& memory, std::span<u64 const, 16> gpr, u64 next_rip) {
    u64 address = memory.displacement;
    if (memory.base != no_register) address += gpr[memory.base & 15U];
    if (memory.index != no_register) address += gpr[memory.index & 15U] << memory.shift;
    if (memory.rip_relative) address += next_rip;
    return address & size_mask(memory.address_size);
}

} // namespace vm
