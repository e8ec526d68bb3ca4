// SPDX-License-Identifier: MIT
#pragma once
// The local APIC of the physical CPU, in x2APIC mode where it can, else by its page. [intel/vol3] 12
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

// What decides between xAPIC and x2APIC mode on a CPU that has both. Without interrupt remapping, which Mullion does
// not use, x2APIC mode is for machines that cannot do without.
struct X2ApicFacts {
    bool is_opted_out = false;   // firmware asks for xAPIC mode (DMAR)
    bool is_handed_over = false; // firmware, or the loader, has turned it on
    bool has_wide_ids = false;   // a CPU's APIC id does not fit xAPIC mode's 8 bits
    bool is_virtual = false;     // a hypervisor below: has no firmware that would mind, and xAPIC accesses cost exits
};
constexpr bool wants_x2apic(X2ApicFacts const& facts) {
    return facts.is_handed_over || facts.has_wide_ids || (facts.is_virtual && !facts.is_opted_out);
}

class LocalApic {
public:
    static bool is_handed_over_in_x2apic();
    // Maps the page once (first CPU) and enables the APIC of the calling CPU; timer stopped, LVTs masked. All CPUs must
    // be in the same mode.
    static lib::Result<void> enable(bool x2apic);
    void end_of_interrupt() const;
    lib::u32 id() const;
    bool is_x2apic() const { return x2apic_; }

    // One interrupt (vectors::timer) when the TSC reaches `deadline`: TSC-deadline mode, else the count-down timer at
    // the frequency that calibrate_timer() measured. TimerQueue::never stops it.
    void arm_timer(lib::u64 deadline_tsc) const;
    // Measures the count-down timer against the TSC; needed only without TSC-deadline mode.
    void calibrate_timer(lib::u64 tsc_hz);
    bool has_tsc_deadline() const { return tsc_deadline_; }

    void send_ipi(lib::u32 apic_id, lib::u8 vector) const;
    void send_init(lib::u32 apic_id) const;
    void send_startup(lib::u32 apic_id, lib::u8 page) const;
    void send_nmi_to_others() const;
    void send_to_others(lib::u8 vector) const;

private:
    lib::u32 read(lib::u32 offset) const;
    void write(lib::u32 offset, lib::u32 value) const;
    void write_icr(lib::u32 apic_id, lib::u32 low) const;

    bool x2apic_ = false;
    bool tsc_deadline_ = false;
    lib::u64 page_ = 0;
    lib::u64 timer_ticks_per_tsc_ = 0; // 32.32 fixed point
};

LocalApic& local_apic();

} // namespace kernel
