// SPDX-License-Identifier: MIT
#pragma once
// Decodes the instruction behind a memory exit: which register or immediate meets which memory operand.
// Not supported, and reported as such with nothing guessed: instructions without a memory operand, calls and returns,
// multiplication and division, bit scans, shifts, SETcc and CMOVcc, everything of x87, MMX, VEX and EVEX, and of SSE
// all but moves between memory and an XMM register.
#include <lib/types.hpp>
#include <span>

namespace vm {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

enum class CpuMode : u8 { Bits16, Bits32, Bits64 };

// `long_mode` is IA32_EFER.LMA, `l` and `d` are the bits of the code segment. [intel/vol3] 3.4.5
constexpr CpuMode cpu_mode(bool long_mode, bool l, bool d) {
    if (long_mode && l) return CpuMode::Bits64;
    return d ? CpuMode::Bits32 : CpuMode::Bits16;
}

// In the order of the segment register encoding.
enum class SegmentRegister : u8 { ES, CS, SS, DS, FS, GS, None };
enum class Repeat : u8 { None, Rep, Repne };
// What an instruction does to an operand.
enum class Access : u8 { Read, Write, Update };

enum class Kind : u8 {
    Unsupported, // not in the list above: nothing else of Instruction is valid
    Truncated,   // the bytes end inside of the instruction: fetch more, if there are more
    Mov,
    Movzx,
    Movsx, // MOVSXD too
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
    Xchg,
    Xadd,
    Cmpxchg,
    CmpxchgPair, // CMPXCHG8B, CMPXCHG16B
    Inc,
    Dec,
    Not,
    Neg,
    Bt,
    Bts,
    Btr,
    Btc,
    Stos,
    Lods,
    Movs,
    Cmps,
    Scas,
    Push,
    Pop,
    Movbe,
    MoveVector,        // between memory and the low bytes of an XMM register; a load clears the others
    MoveVectorAligned, // 16 bytes; #GP where they are not aligned
    MoveVectorHigh,    // the upper 8 bytes alone
    MoveVectorLow,     // the lower 8 bytes; a load keeps the others
};

// What meets the memory operand, destination first.
// RegisterOnly and ImmediateOnly: PUSH and POP without ModRM.
enum class Form : u8 { MemoryRegister, RegisterMemory, MemoryImmediate, MemoryOnly, RegisterOnly, ImmediateOnly };

inline constexpr u8 no_register = 0xff;

// Where the operand is. The two halves of eight bytes are what the decoder writes at once.
struct MemoryParts {
    u8 base; // register numbers in encoding order, or no_register
    u8 index;
    u8 shift; // the index counts 1 << shift times
    u8 address_size;
    SegmentRegister segment; // the override, or None
    bool rip_relative;
    u16 reserved;
};
struct MemoryOperand : MemoryParts {
    u64 displacement; // sign-extended; the whole address of A0..A3
};
static_assert(sizeof(MemoryParts) == 8 && sizeof(MemoryOperand) == 16);

struct Operation {
    Kind kind;
    Form form;
    u8 operand_size; // of the register or target: 1, 2, 4, 8, 16
    u8 memory_size;  // smaller than operand_size for MOVZX and MOVSX and some moves to XMM registers
    u8 reg;          // 0..15 in encoding order; of AH..BH the number of AX..BX
    bool high_byte;  // AH, CH, DH or BH
    Repeat repeat;   // means something to string instructions alone
    bool lock;
};
static_assert(sizeof(Operation) == 8);

struct Instruction : Operation {
    MemoryOperand memory;
    u64 immediate; // sign-extended to 64 bits; valid if has_immediate()
    u8 length;

    bool has_immediate() const { return form == Form::MemoryImmediate || form == Form::ImmediateOnly; }
};

// Reads at most min(15, bytes.size()) bytes. True when `out` is filled; else only out.kind is set: Unsupported or
// Truncated.
bool decode(std::span<u8 const> bytes, CpuMode mode, Instruction& out);

// The offset within its segment, of an operand of an instruction whose successor is at `next_rip`.
u64 effective_address(MemoryOperand const& memory, std::span<u64 const, 16> gpr, u64 next_rip);

// The segment that counts when there is no override: SS behind rSP and rBP, else DS. [intel/vol1] 3.7.4
constexpr SegmentRegister effective_segment(MemoryOperand const& memory) {
    if (memory.segment != SegmentRegister::None) return memory.segment;
    return memory.base == 4 || memory.base == 5 ? SegmentRegister::SS : SegmentRegister::DS;
}

constexpr u64 size_mask(unsigned bytes) { return ~u64{0} >> ((8 - bytes) * 8); } // 1 to 8

} // namespace vm
