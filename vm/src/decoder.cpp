#include "code_cursor.hpp"
#include <algorithm>
#include <array>

namespace vm {
namespace {

// One opcode. `special` stands for all that is not "opcode, ModRM, immediate": prefixes, 0F, strings, A0..A3, groups.
enum class Special : u8 {
    None,
    Group, // `detail` indexes groups
    Rex,
    OperandSize,
    AddressSize,
    Lock,
    Rep,
    Repne,
    SegmentOverride, // `detail` is the segment
    Escape,
    String,
    Offset,     // A0..A3
    Movsxd,     // 64-bit mode only
    MovntiOnly, // no 16-bit form
};

enum class Immediate : u8 { None, Byte, Full };

// `fixed` is the first half of Operation as a number; `vary` times the operand size adds the sizes that depend on it.
struct Opcode {
    u32 fixed = 0; // kind, form, operand_size, memory_size
    u16 vary = 0;  // operand_size, memory_size
    Special special = Special::None;
    u8 detail = 0; // the group, the segment, or an Immediate

    constexpr Kind kind() const { return static_cast<Kind>(fixed & 0xffU); }
    constexpr Form form() const { return static_cast<Form>((fixed >> 8) & 0xffU); }
    constexpr Immediate immediate() const { return static_cast<Immediate>(detail); }
};
static_assert(sizeof(Opcode) == 8);

using Map = std::array<Opcode, 256>;
enum Group : u8 { GroupAlu8, GroupAlu, GroupAluByte, GroupC6, GroupC7, GroupF6, GroupF7, GroupFE, GroupFF, GroupBA };

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
        map[0x40 + i] = special(Special::Rex);
    for (unsigned i = 0; i < 4; ++i)
        map[0x26 + i * 8] = special(Special::SegmentOverride, static_cast<u8>(i));
    map[0x64] = special(Special::SegmentOverride, static_cast<u8>(SegmentRegister::FS));
    map[0x65] = special(Special::SegmentOverride, static_cast<u8>(SegmentRegister::GS));
    map[0x66] = special(Special::OperandSize);
    map[0x67] = special(Special::AddressSize);
    map[0xf0] = special(Special::Lock);
    map[0xf2] = special(Special::Repne);
    map[0xf3] = special(Special::Rep);
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
        map[0xaa + i] = sized(Kind::Stos, Form::MemoryRegister, byte);
        map[0xac + i] = sized(Kind::Lods, Form::RegisterMemory, byte);
        map[0xa0 + i].special = map[0xa2 + i].special = Special::Offset;
        map[0xa4 + i].special = map[0xaa + i].special = map[0xac + i].special = Special::String;
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
    map[0xb6] = extended(Kind::Movzx, 1);
    map[0xb7] = extended(Kind::Movzx, 2);
    map[0xbe] = extended(Kind::Movsx, 1);
    map[0xbf] = extended(Kind::Movsx, 2);
    map[0xc3] = sized(Kind::Mov, Form::MemoryRegister, false); // MOVNTI
    map[0xc3].special = Special::MovntiOnly;
    return map;
}();

// By the reg field of ModRM. [intel/vol2] table A-6
constexpr std::array<std::array<Opcode, 8>, 10> groups = [] {
    std::array<std::array<Opcode, 8>, 10> all{};
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
    all[GroupBA][4] = sized(Kind::Bt, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][5] = sized(Kind::Bts, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][6] = sized(Kind::Btr, Form::MemoryImmediate, false, Immediate::Byte);
    all[GroupBA][7] = sized(Kind::Btc, Form::MemoryImmediate, false, Immediate::Byte);
    return all;
}();

struct Prefixes {
    u8 rex = 0;
    bool operand_size = false;
    bool address_size = false;
    bool lock = false;
    SegmentRegister segment = SegmentRegister::None;
    Repeat repeat = Repeat::None;
};

// False: not a prefix (in this mode). A legacy prefix behind REX makes REX void. [intel/vol2] 2.2.1
bool take_prefix(Opcode const& opcode, u8 byte, CpuMode mode, Prefixes& prefixes) {
    u8 rex = 0;
    switch (opcode.special) {
    case Special::Rex:
        if (mode != CpuMode::Bits64) return false;
        rex = byte;
        break;
    case Special::OperandSize: prefixes.operand_size = true; break;
    case Special::AddressSize: prefixes.address_size = true; break;
    case Special::Lock: prefixes.lock = true; break;
    case Special::Rep: prefixes.repeat = Repeat::Rep; break;
    case Special::Repne: prefixes.repeat = Repeat::Repne; break;
    case Special::SegmentOverride:
        // 64-bit mode ignores all but FS and GS. [intel/vol1] 3.3.7.1
        if (mode != CpuMode::Bits64 || opcode.detail >= static_cast<u8>(SegmentRegister::FS))
            prefixes.segment = static_cast<SegmentRegister>(opcode.detail);
        break;
    case Special::None:
    case Special::Group:
    case Special::Escape:
    case Special::String:
    case Special::Offset:
    case Special::Movsxd:
    case Special::MovntiOnly: return false;
    }
    prefixes.rex = rex;
    return true;
}

u8 operand_size_of(Prefixes const& prefixes, CpuMode mode) {
    if ((prefixes.rex & 8U) != 0) return 8;
    return (mode == CpuMode::Bits16) != prefixes.operand_size ? 2 : 4;
}

u8 address_size_of(Prefixes const& prefixes, CpuMode mode) {
    if (mode == CpuMode::Bits64) return prefixes.address_size ? 4 : 8;
    return (mode == CpuMode::Bits16) != prefixes.address_size ? 2 : 4;
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
    fill_operation(opcode, operand_size_of(prefixes, mode), 0, 0, prefixes.repeat, prefixes.lock, out);
    out.immediate = 0;
    u8 const address_size = address_size_of(prefixes, mode);
    static_cast<MemoryParts&>(out.memory) = {.base = no_register,
                                             .index = no_register,
                                             .shift = 0,
                                             .address_size = address_size,
                                             .segment = prefixes.segment,
                                             .rip_relative = false,
                                             .reserved = 0};
    out.memory.displacement = 0;
    if (opcode.special == Special::String) {
        out.memory.base = opcode.kind() == Kind::Stos ? 7 : 6;                     // rDI, else rSI; Movs has both
        if (opcode.kind() == Kind::Stos) out.memory.segment = SegmentRegister::ES; // cannot be overridden
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
    Opcode const* opcode = nullptr;
    for (;;) {
        if (!cursor.has(1)) return stop(at_end, out);
        u8 const byte = *cursor.at++;
        opcode = &one_byte.data()[byte];
        if (opcode->special == Special::None || !take_prefix(*opcode, byte, mode, prefixes)) break;
    }
    if (opcode->special == Special::Escape) {
        if (!cursor.has(1)) return stop(at_end, out);
        opcode = &two_byte.data()[*cursor.at++];
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

    u8 size = operand_size_of(prefixes, mode);
    if (opcode->special == Special::MovntiOnly) size = std::max<u8>(4, size);
    fill_operation(*opcode, size, reg, prefixes.rex, prefixes.repeat, prefixes.lock, out);
    if (opcode->special == Special::Movsxd) out.memory_size = std::min<u8>(4, out.operand_size);
    u8 const address_size = address_size_of(prefixes, mode);
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

// The common case straight through: at most a REX prefix, one or two opcode bytes, ModRM; `bytes` is long enough for
// any of these. Everything else goes the long way round.
template <CpuMode Mode> [[gnu::always_inline]] inline bool decode_plain(std::span<u8 const> bytes, Instruction& out) {
    CodeCursor<false> cursor{bytes.data(), nullptr};
    unsigned rex = 0;
    unsigned byte = *cursor.at++;
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
    fill_operation(*opcode, 4U + ((rex & 8U) >> 1), (modrm >> 3) & 7U, rex, Repeat::None, false, out);
    decode_memory(cursor, modrm, rex, Mode, wide ? 8 : 4, SegmentRegister::None, out.memory);
    out.immediate = 0;
    if (opcode->immediate() != Immediate::None) take_immediate(*opcode, cursor, out);
    out.length = static_cast<u8>(cursor.at - bytes.data());
    return true;
}

} // namespace

bool decode(std::span<u8 const> bytes, CpuMode mode, Instruction& out) {
    constexpr std::size_t longest_plain = 13; // REX, 0F, opcode, ModRM, SIB, displacement, immediate
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
