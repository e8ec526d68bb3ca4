// SPDX-License-Identifier: MIT
#include "behave/behave.hpp"

#include <array>

namespace behave {
namespace {

constexpr std::array<Test, 22> tests = {{{"apic", local_apic},
                                         {"shadow", shadows},
                                         // For a VM that shares its CPU; Bochs' virtual-interrupt delivery fails it.
                                         {"flag", interrupt_flag, false},
                                         {"pic", pic},
                                         {"ioapic", io_apic},
                                         {"timer", apic_timer},
                                         {"hpet", hpet},
                                         {"real", real_mode},
                                         {"task", tasks},
                                         {"debug", debug},
                                         {"step", single_step},
                                         {"resume", resume_flags},
                                         {"trap", trap_steps},
                                         {"sysenter", sysenter},
                                         {"fpu", fpu},
                                         {"msr", msrs},
                                         {"paging", paging},
                                         {"keys", protection_keys},
                                         {"cpuid", cpuid},
                                         {"time", guest_time},
                                         {"uart", uart},
                                         {"mmio", mmio_forms}}};

std::array<u8, 64> order{};
unsigned order_count;

bool on_recorded(Frame& frame) {
    if (order_count < order.size()) order[order_count++] = static_cast<u8>(frame.vector);
    if (apic::bit(apic::Isr, static_cast<u8>(frame.vector))) apic::eoi();
    return true;
}

} // namespace

void record_start() { order_count = 0; }
unsigned recorded() { return order_count; }
u8 record(unsigned index) { return index < order_count ? order[index] : 0; }
void record_vector(u8 vector) { set_handler(vector, on_recorded); }

void drain() {
    apic::write(apic::Tpr, 0);
    for (unsigned i = 0; i < 8; i++) {
        interrupt_window();
        apic::eoi();
    }
}

void make_exits(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        x86::cpuid(i & 7);
        x86::in8(0x61);
        x86::rdmsr(IA32_APIC_BASE);
        ioapic::read(1);
    }
}

} // namespace behave

void guest_main() {
    using namespace behave;
    auto const wanted = option("test");
    bool any = false;
    for (auto const& test : tests) {
        if (!option_lists("test", test.name) && (wanted != "all" || !test.is_in_all)) continue;
        if (option_lists("skip", test.name)) continue;
        any = true;
        u64 const before = failures();
        apic::enable();
        // What was printed is sent by the machine's interrupts. Bochs holds these back while IF is clear, and its
        // virtual-interrupt delivery then gives the guest its own at the wrong moment. They are over before a test
        // begins.
        u64 const printed = x86::rdtsc();
        x86::sti();
        while (x86::rdtsc() - printed < clock::tsc_hz() / 500) {
        }
        x86::cli();
        auto const fault = try_execute([&] { test.run(); });
        x86::cli();
        if (fault.happened) {
            fail(test.name, 0, fault.vector);
            print("guest: exception {} error {:#x} at {:#x} cr2 {:#x}\n", fault.vector, fault.error, fault.rip,
                  fault.cr2);
        }
        if (failures() == before) print("guest: ok {}\n", test.name);
    }
    if (!any) {
        print("guest: behave needs test=all or some of");
        for (auto const& test : tests)
            print(" {}", test.name);
        print("\n");
    }
}
