// SPDX-License-Identifier: MIT
#pragma once
// Machine checks: what the machine itself reports as broken. Without CR4.MCE each of them resets the machine without a
// word; so Mullion sets it on every CPU and keeps it set while guests run. [intel/vol3] chapter 17, [amd/vol2] chapter
// 9
//
// Not supported: corrected errors (no CMCI, banks are not polled), recovery of the memory page that an error names.
#include <array>
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <string_view>

namespace kernel {

// On the calling CPU, once its IDT is loaded. Says in the log what its banks still hold from before.
void enable_machine_checks();
// The bit of CR4 that must be set whenever this machine runs anything: CR4.MCE, or 0 if its CPUs have none.
lib::u64 machine_check_cr4();

// What the banks of the calling CPU hold in the handler of #MC.
class MachineCheck {
public:
    enum class Kind : lib::u8 {
        Elsewhere,   // nothing: another CPU's, which some machines tell all of them
        Recoverable, // what ran here cannot go on, everything else can
        Fatal,       // the CPU's state, or that of memory, is lost
    };
    // Reads the banks and empties them, except after a Fatal one: firmware may want to see it after the reset. Lets the
    // CPU report the next.
    static MachineCheck take();
    Kind kind() const { return kind_; }
    void print(lib::TextSink& sink) const;

private:
    friend void enable_machine_checks();
    struct Bank {
        lib::u32 number;
        lib::u64 status, address, misc;
    };
    static constexpr lib::u32 most_banks = 32;
    void read_banks();
    void empty_banks() const;

    std::array<Bank, most_banks> banks_{};
    lib::u32 count_ = 0;
    lib::u64 global_status_ = 0;
    Kind kind_ = Kind::Fatal;
};

// What has struck this CPU while `what` ran ("a guest"): takes it, and writes the banks to the log. A Fatal one stops
// the machine.
MachineCheck::Kind take_machine_check(std::string_view what);
// For the end of whatever cannot go on after a Recoverable one.
inline constexpr std::string_view machine_check_end =
    "the machine reports damaged data (machine check; the log has its banks)";

} // namespace kernel
