// SPDX-License-Identifier: MIT
// Streams of register accesses, interrupts and time against one local APIC. Whatever a guest writes: IRR and ISR hold
// no vector below 16, their fast summaries agree with the page, nested service is ordered, and the timer works at most
// once per period.
#include "require.hpp"

#include <cstring>
#include <span>
#include <vm/local_apic.hpp>

namespace {

using fuzz::require;
using namespace vm::apic_reg;
using vm::u32;
using vm::u64;
using vm::u8;

struct Bus final : vm::ApicBus {
    u64 now = 0;
    bool armed = false;
    u64 deadline = 0;
    u64 guest_tsc() override { return now; }
    void arm_timer(u64 when) override {
        armed = true;
        deadline = when;
    }
    void disarm_timer() override { armed = false; }
    void send_ipi(vm::LocalApic& from, vm::IpiRequest const& request) override {
        bool const fixed = request.mode == vm::DeliveryMode::Fixed || request.mode == vm::DeliveryMode::LowestPriority;
        require(!fixed || request.vector >= 16);
        require(request.shorthand != vm::Shorthand::Self);
        if (request.shorthand == vm::Shorthand::None && from.matches(request.destination, request.logical) && fixed)
            from.post(request.vector, vm::TriggerMode::Edge);
    }
    void end_of_interrupt(u8 vector) override { require(vector >= 16); }
    void interrupt_pending(vm::LocalApic&) override {}
};

void check(vm::LocalApic& apic) {
    vm::ApicPage const& page = apic.page();
    require((page[IRR] & 0xffff) == 0 && (page[ISR] & 0xffff) == 0);
    int const irr = apic.highest_irr(), isr = apic.highest_isr();
    u32 const isr_class = isr < 0 ? 0 : static_cast<u32>(isr) & 0xf0;
    u32 const tpr = page[TPR] & 0xf0;
    u32 const threshold = tpr > isr_class ? tpr : isr_class;
    require(apic.highest_pending() == (irr >= 0 && (static_cast<u32>(irr) & 0xf0) > threshold ? irr : -1));
    require((apic.processor_priority() & 0xf0U) == threshold);
    require(apic.is_software_enabled() == ((page[SVR] & 0x100) != 0));
    if (!apic.is_software_enabled())
        for (u32 lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt += 16)
            require((page[lvt] & 0x10000) != 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static vm::ApicPage page;
    Bus bus;
    vm::LocalApicConfig config;
    config.id = 3;
    config.crystal = {1'000'000'000, 1};
    config.minimum_timer_period = 100;
    vm::LocalApic apic(config, page, bus);

    struct Step {
        u8 what, size;
        vm::u16 offset;
        u64 value;
    };
    for (; size >= sizeof(Step); data += sizeof(Step), size -= sizeof(Step)) {
        Step step;
        std::memcpy(&step, data, sizeof step);
        u8 const width = static_cast<u8>(1U << (step.size & 3));
        u64 value = 0;
        switch (step.what % 12) {
        case 0: apic.mmio_read(step.offset & 0xfff, width); break;
        case 1: apic.mmio_write(step.offset & 0xfff, width, step.value); break;
        case 2: apic.mmio_write(step.offset & 0x3f0, 4, step.value); break;
        case 3:
            require(apic.read_x2apic(0x800 + (step.offset & 0xff), value) == vm::MsrResult::Done || value == 0);
            break;
        case 4: static_cast<void>(apic.write_x2apic(0x800 + (step.offset & 0xff), step.value)); break;
        case 5: static_cast<void>(apic.write_base(step.value)); break;
        case 6:
            apic.accept(static_cast<u8>(step.value),
                        (step.size & 4) != 0 ? vm::TriggerMode::Level : vm::TriggerMode::Edge);
            break;
        case 7:
            apic.post(static_cast<u8>(step.value),
                      (step.size & 4) != 0 ? vm::TriggerMode::Level : vm::TriggerMode::Edge);
            break;
        case 8:
            if (int const vector = apic.highest_pending(); vector >= 0) apic.acknowledge(static_cast<u8>(vector));
            break;
        case 9:
            bus.now += step.value;
            if ((step.size & 8) != 0) apic.tsc_shifted(step.value);
            if (bus.armed && bus.deadline <= bus.now) {
                apic.timer_expired();
                if (apic.is_timer_running()) require(bus.armed);
            }
            break;
        case 10: apic.write_tsc_deadline(step.value); break;
        default:
            if ((step.size & 15) == 0) apic.init_signal();
            apic.merge_posted();
            apic.nmi_line();
            apic.accepts_pic();
        }
        check(apic);
    }
    return 0;
}
