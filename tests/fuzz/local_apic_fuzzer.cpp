// SPDX-License-Identifier: MIT
// Streams of register accesses, interrupts and time against one local APIC. Whatever a guest writes: IRR and ISR hold
// no vector below 16, their fast summaries agree with the page, nested service is ordered, and the timer works at most
// once per period. Some of the time the hardware delivers, as with virtual-interrupt delivery or AVIC: then the page is
// the hardware's, and all of this holds again as soon as it is not.
#include "require.hpp"

#include <algorithm>
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

// What virtual-interrupt delivery does to the page without an exit. [intel/vol3] 31.2, [amd/vol2] 15.29.3
class Hardware {
public:
    explicit Hardware(vm::LocalApic& apic) : apic_(apic), page_(apic.page()) {}
    bool is_on() const { return is_on_; }
    void turn(bool on) {
        is_on_ = on;
        apic_.set_virtualized(on);
    }
    void deliver() {
        int const vector = apic_.highest_irr();
        if (vector < 0 || (static_cast<u32>(vector) & 0xf0) <= (page_[PPR] & 0xf0)) return;
        page_.clear(IRR, static_cast<u8>(vector));
        page_.set(ISR, static_cast<u8>(vector));
        update_priority();
    }
    void end() {
        int const vector = apic_.highest_isr();
        if (vector < 0) return;
        page_.clear(ISR, static_cast<u8>(vector));
        update_priority();
        apic_.eoi_exit(static_cast<u8>(vector)); // this vector may be in the EOI-exit bitmap whether TMR has it or not
    }
    // A write that the hardware lets through: of TPR and EOI without an exit of their own, of the others with one after
    // it. [intel/vol3] 31.4.3, [amd/vol2] table 15-22
    void write(u32 offset, u32 value) {
        constexpr auto bit = [](u32 at) { return u64{1} << at / 16; };
        constexpr u64 with_exit = bit(ID) | bit(EOI) | bit(TPR) | bit(LDR) | bit(DFR) | bit(SVR) | bit(ESR) |
                                  bit(ICR_LOW) | bit(LVT_TIMER) | bit(LVT_THERMAL) | bit(LVT_PERFORMANCE) |
                                  bit(LVT_LINT0) | bit(LVT_LINT1) | bit(LVT_ERROR) | bit(INITIAL_COUNT) | bit(DIVIDE) |
                                  bit(SELF_IPI);
        if ((with_exit >> (offset / 16) & 1) == 0) return;
        if (offset == EOI) return end();
        page_[offset] = value;
        if (offset != TPR) return apic_.apic_write(offset);
        page_[TPR] &= 0xff;
        update_priority();
    }

private:
    void update_priority() {
        u32 const in_service = static_cast<u32>(std::max(apic_.highest_isr(), 0)) & 0xf0;
        page_[PPR] = (page_[TPR] & 0xf0) >= in_service ? page_[TPR] : in_service;
    }
    vm::LocalApic& apic_;
    vm::ApicPage& page_;
    bool is_on_ = false;
};

void check(vm::LocalApic& apic, bool is_hardware) {
    vm::ApicPage const& page = apic.page();
    require((page[IRR] & 0xffff) == 0 && (page[ISR] & 0xffff) == 0);
    require(apic.is_software_enabled() == ((page[SVR] & 0x100) != 0));
    if (is_hardware) return;
    int const irr = apic.highest_irr(), isr = apic.highest_isr();
    u32 const isr_class = isr < 0 ? 0 : static_cast<u32>(isr) & 0xf0;
    u32 const tpr = page[TPR] & 0xf0;
    u32 const threshold = tpr > isr_class ? tpr : isr_class;
    require(apic.highest_pending() == (irr >= 0 && (static_cast<u32>(irr) & 0xf0) > threshold ? irr : -1));
    require((apic.processor_priority() & 0xf0U) == threshold);
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
    Hardware hardware(apic);
    auto const is_hardwares = [&](u32 offset) { return hardware.is_on() && (offset == TPR || offset == EOI); };

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
        switch (step.what % 14) {
        case 0: apic.mmio_read(step.offset & 0xfff, width); break;
        case 1:
            if (!is_hardwares(step.offset & 0xff0)) apic.mmio_write(step.offset & 0xfff, width, step.value);
            break;
        case 2:
            if (!is_hardwares(step.offset & 0x3f0)) apic.mmio_write(step.offset & 0x3f0, 4, step.value);
            break;
        case 3:
            require(apic.read_x2apic(0x800 + (step.offset & 0xff), value) == vm::MsrResult::Done || value == 0);
            break;
        case 4:
            if (!is_hardwares((step.offset & 0xff) * 16U))
                static_cast<void>(apic.write_x2apic(0x800 + (step.offset & 0xff), step.value));
            break;
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
            if (hardware.is_on())
                hardware.deliver();
            else if (int const vector = apic.highest_pending(); vector >= 0)
                apic.acknowledge(static_cast<u8>(vector));
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
        case 11: hardware.turn((step.value & 1) != 0); break;
        case 12:
            if (hardware.is_on()) hardware.write(step.offset & 0x3f0, static_cast<u32>(step.value));
            break;
        default:
            if ((step.size & 15) == 0) apic.init_signal();
            apic.merge_posted();
            apic.nmi_line();
            apic.accepts_pic();
        }
        check(apic, hardware.is_on());
    }
    return 0;
}
