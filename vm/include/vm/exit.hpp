// SPDX-License-Identifier: MIT
#pragma once
// A VM exit in vendor-neutral form, and what becomes of the instruction that caused it.
#include <lib/types.hpp>
#include <string_view>

namespace vm {

using lib::GuestLinear;
using lib::GuestPhys;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// What happens to the guest's instruction. There is no default: an exit that nobody handles stops that VM.
enum class Outcome : u8 {
    Retry,   // run it again, or simply go on: nothing was completed
    Advance, // it was carried out: go on behind it
    Inject,  // it faults: the vCPU holds the exception
    Sleep,   // it was carried out and waits for an interrupt (HLT)
    Yield,   // it was carried out; another vCPU may have the CPU now (PAUSE loop, reset of the VM)
    StopVm,  // this VM cannot go on; Vm::stop has said why
};

enum class ExitReason : u8 {
    ExternalInterrupt,
    InterruptWindow,
    NmiWindow,
    Exception,
    TripleFault,
    Cpuid,
    Hlt,
    Pause,
    Hypercall,
    ReadMsr,
    WriteMsr,
    PortIo,
    MemoryFault,
    Xsetbv,
    ControlRegister,
    DebugRegister,
    CacheControl,   // INVD, WBINVD
    Forbidden,      // an instruction that does not exist for guests: #UD
    Privileged,     // one that exists, but that we refuse: #GP(0)
    ApicAccess,     // the APIC page, where hardware could not do it alone
    ApicWrite,      // trap-like: the value is in the page already
    EndOfInterrupt, // of a vector in the EOI-exit bitmap
    TprBelowThreshold,
    PreemptionTimer,
    Nmi,
    MachineCheck,
    TaskSwitch,
    InvalidState, // the guest's registers are such that no CPU would run them
    Unknown,
};
inline constexpr unsigned exit_reason_count = static_cast<unsigned>(ExitReason::Unknown) + 1;
std::string_view name_of(ExitReason reason);

struct PortAccess {
    u16 port;
    u8 size; // 1, 2, 4
    bool is_in;
    bool is_string;
    bool is_repeated;
};

struct MemoryAccess {
    GuestPhys address;
    bool is_write;
    bool is_fetch;
    bool is_table_walk; // the access was to the guest's own page tables
};

struct RegisterAccess { // MOV to and from a control or debug register
    u8 number;
    u8 operand; // general register
    enum class Kind : u8 { Write, Read, Clts, Lmsw, Smsw } kind;
    u16 lmsw_source;
};

// A hardware task switch, not yet begun.
struct TaskSwitch {
    enum class Source : u8 { Call, Iret, Jump, Gate } source; // Gate: of the IDT
    u16 selector;                                             // of the new TSS
    // Gate only:
    bool is_external;  // no instruction asked for it: an interrupt, an NMI, or an exception that is not INT3 or INTO
    bool is_exception; // by hardware, of this vector
    u8 vector;
    bool has_error_code; // for the new task's stack
    u32 error_code;
};

// What stands at RIP, for CPUs whose exits do not say.
struct DecodedInstruction {
    enum class Kind : u8 { Other, ReadControl, WriteControl, Clts, Lmsw, Smsw } kind;
    u8 length;
    u8 control;      // register number of ReadControl, WriteControl
    u8 operand;      // their general register
    u16 lmsw_source; // the operand of Lmsw, from register or memory
};

// `reason` and `length` are always valid, of the rest what the comment says. Without initialisers: most exits need
// none.
struct Exit {
    ExitReason reason;
    u8 length;              // of the instruction, in bytes; 0: not known
    u8 vector;              // EndOfInterrupt
    u16 apic_offset;        // ApicWrite
    PortAccess port;        // PortIo
    MemoryAccess memory;    // MemoryFault, ApicAccess
    RegisterAccess control; // ControlRegister
    TaskSwitch task;        // TaskSwitch
};

} // namespace vm
