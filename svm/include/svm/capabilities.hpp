// SPDX-License-Identifier: MIT
#pragma once
// What this CPU's AMD-V can do. Not used although it may be there: virtual GIF and virtual VMLOAD/VMSAVE (they serve
// STGI, CLGI, VMLOAD and VMSAVE of a guest, and guests have no SVM of their own), virtual NMI, LBR virtualization, TSC
// ratio.
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <vm/backend.hpp>

namespace svm {

using Refusal = vm::Refusal;

// Optional features to leave alone although the CPU has them: for tests and for finding faults.
struct Disabled {
    bool next_rip = false, decode_assists = false, flush_by_asid = false, clean_bits = false, large_pages = false,
         pause_filter = false, avic = false, x2avic = false;
    // Words of the option svm-disable=..., comma-separated. False at an unknown one.
    bool parse(std::string_view words);
    static std::string_view known_words();
};

inline constexpr Refusal locked_off{"AMD-V is locked off by firmware",
                                    "enable it in the firmware setup (often called SVM Mode), then power-cycle"};

// Faults of CPUs and emulators that are worked round, each by its name. The log says which are met.
struct Quirks {
    // QEMU's TCG may deliver an interrupt that is injected as an event a second time, while the guest has interrupts
    // off: helper_vmrun() leaves its vector in exception_index, where the end of a time slice finds it. Virtual
    // interrupts it delivers once.
    bool repeats_injected_interrupts = false;
    // QEMU's TCG leaves CS.L and CS.D both set after a SYSENTER in compatibility mode, where AMD CPUs raise #UD, and
    // its VMRUN refuses that state: any program could stop its VM. What it then saves as RIP has the lowest 12 bits of
    // VMRUN's own address.
    bool sysenter_sets_cs_l_and_d = false;

    friend bool operator==(Quirks const&, Quirks const&) = default;
    void describe(lib::TextSink& sink) const;
};

struct Capabilities {
    lib::u32 features; // CPUID 8000_000Ah EDX
    lib::u32 asids;
    lib::u8 revision;
    bool has_next_rip;
    bool has_decode_assists;
    bool has_flush_by_asid;
    bool has_clean_bits;
    bool has_pause_filter;
    bool has_pause_threshold; // PAUSEs far apart do not count
    bool has_pages_2m;
    bool has_pages_1g;
    bool has_tsc_aux; // RDTSCP: the guest's TSC_AUX is switched
    bool has_avic;    // with flush by ASID, which it needs
    bool has_x2avic;
    // The CPU notices at once that a target of an interrupt runs no more, so that it may be told that it runs.
    bool has_avic_running;
    Quirks quirks;

    friend bool operator==(Capabilities const&, Capabilities const&) = default;

    void describe(lib::TextSink& sink) const;
};

// Reads CPUID and VM_CR of the calling CPU. SVM that is off, but not locked, counts as there: unlock_svm() turns it on.
std::expected<Capabilities, Refusal> read_capabilities(Disabled const& disabled);
// Clears VM_CR.SVMDIS of the calling CPU if firmware has set it. False if it stays set.
bool unlock_svm();

} // namespace svm
