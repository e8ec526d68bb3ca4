// SPDX-License-Identifier: MIT
#pragma once
// Names and measures the instructions that an AMD-V exit reports without their length (no NRIP save, no decode
// assists). Not supported, and reported as such: every other instruction.
#include <vm/decoder.hpp>

namespace vm {

enum class Intercepted : u8 {
    Unsupported,
    Truncated, // the bytes end inside of the instruction
    Cpuid,
    Rdmsr,
    Wrmsr,
    Rdtsc,
    Rdtscp,
    Rdpmc,
    Hlt,
    Pause,
    Invd,
    Wbinvd,
    In,
    Out,
    Ins,
    Outs,
    Int,
    Int3,
    Into,
    Icebp,
    Iret,
    Pushf,
    Popf,
    Rsm,
    Clts,
    ReadCr,
    WriteCr,
    ReadDr,
    WriteDr,
    Lmsw,
    Smsw,
    Invlpg,
    Sgdt,
    Sidt,
    Lgdt,
    Lidt,
    Xsetbv,
    Monitor,
    Mwait,
    Monitorx,
    Mwaitx,
    Vmcall,
    Vmmcall,
    Vmrun,
    Vmload,
    Vmsave,
    Stgi,
    Clgi,
    Skinit,
    Invlpga,
};

struct InterceptedInstruction {
    u8 length;
    Intercepted kind;
    u8 reg;          // the general register of ReadCr..WriteDr, and of Lmsw and Smsw unless has_memory
    u8 control;      // the number of the control or debug register
    u8 immediate;    // the vector of Int, the port of IN and OUT with an immediate port
    bool has_memory; // `memory` is valid: Invlpg, Sgdt..Lidt, and Lmsw and Smsw with a memory operand
    u8 operand_size; // 2, 4, 8; 1 for the byte forms of IN, OUT, INS and OUTS
    u8 address_size;
    Repeat repeat;
    SegmentRegister segment; // the override, or None
    MemoryOperand memory;
};

// Reads at most min(15, bytes.size()) bytes. True when `out` is filled; else only out.kind is set: Unsupported or
// Truncated.
bool decode_intercepted(std::span<u8 const> bytes, CpuMode mode, InterceptedInstruction& out);

// 0 when the bytes are none of these instructions, or not all of it.
inline u8 instruction_length(std::span<u8 const> bytes, CpuMode mode) {
    InterceptedInstruction instruction;
    return decode_intercepted(bytes, mode, instruction) ? instruction.length : u8{0};
}

} // namespace vm
