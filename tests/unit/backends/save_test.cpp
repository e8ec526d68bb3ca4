// SPDX-License-Identifier: MIT
// A vCPU's state goes out and into another VM's vCPU, whichever vendor's CPU it runs on: nothing of it is lost, and
// what no vCPU can be is refused.
#include "backends/guest.hpp"

#include <cstring>
#include <memory>

namespace backends {
namespace {

using lib::Errc;
using vm::Gpr;
using vm::SavedEvents;
using vm::VcpuState;
namespace reg = vm::apic_reg;

constexpr u64 interrupts_on = 0x202, interrupts_off = 2;
constexpr u64 moment = 1'000'000; // of the machine's TSC

template <typename Machine> class SaveAndRestore : public Machine {
protected:
    void SetUp() override {
        this->start();
        state = std::make_unique<VcpuState>();
    }
    void save() { ASSERT_TRUE(this->guest().save(*state, moment)); }
    // Another VM takes the place of this one.
    void be_born_again() {
        this->guest().unload();
        this->vm = {};
        auto made =
            vm::Vm::create({.name = "again", .memory = 4 * lib::MiB, .vcpu_count = 1}, *this->backend, this->platform);
        ASSERT_TRUE(made);
        this->vm = std::move(*made);
        EXPECT_TRUE(this->vm->ram().scrub(~u64{0}));
        this->vm->start();
    }
    lib::Result<void> restore() { return this->guest().restore(*state, moment); }
    void move() {
        save();
        be_born_again();
        ASSERT_TRUE(restore());
    }
    // As move(), after `change` of the state.
    template <typename Change> void move_with(Change change) {
        save();
        change(*state);
        state->checksum = state->sum();
        be_born_again();
        ASSERT_TRUE(restore());
    }
    // What becomes of a state that `change` has made of a good one.
    template <typename Change> Errc refusal(Change change) {
        save();
        change(*state);
        state->checksum = state->sum();
        auto const result = restore();
        return result ? Errc::NotFound : result.error(); // NotFound: it was taken
    }
    void send(u8 vector) { this->guest().post_interrupt(vector, vm::TriggerMode::Edge); }
    u32 apic_register(u32 offset) { return static_cast<u32>(this->guest().apic().mmio_read(offset, 4)); }
    u64 msr(u32 index) {
        u64 value = ~u64{0};
        EXPECT_EQ(this->guest().msrs().read(index, value), vm::MsrResult::Done) << std::hex << index;
        return value;
    }
    void set_msr(u32 index, u64 value) {
        EXPECT_EQ(this->guest().msrs().write(index, value), vm::MsrResult::Done) << std::hex << index;
    }
    std::unique_ptr<VcpuState> state;
};
using Machines = ::testing::Types<Intel, Amd>;
TYPED_TEST_SUITE(SaveAndRestore, Machines);

TYPED_TEST(SaveAndRestore, AStateThatIsRestoredIsTheSameWhenItIsSavedAgain) {
    auto& guest = this->guest();
    for (unsigned i = 0; i < 16; i++)
        guest.gprs()[i] = 0x1111'2222'3333'0000 + i;
    guest.store_gprs();
    guest.set_rip(0x12'3456);
    this->set_msr(vm::msr::IA32_LSTAR, 0xffff'8000'1234'5678);
    this->set_msr(vm::msr::IA32_MTRR_PHYSBASE0 + 2, 0x4000'0006);
    guest.apic().mmio_write(reg::TPR, 4, 0x34);
    guest.apic().mmio_write(reg::LVT_TIMER, 4, 0x2'0031);
    guest.apic().mmio_write(reg::DIVIDE, 4, 0xb);
    guest.apic().mmio_write(reg::INITIAL_COUNT, 4, 0x0100'0000);
    // The rest by way of the state: the fake CPU has no such registers.
    this->move_with([](VcpuState& state) {
        state.cr2 = 0x7fff'1234'5000;
        state.breakpoints = {1, 2, 3, 4};
        state.dr6 = 0xffff'4ff0;
        state.dr7 = 0x401;
        state.gdt = {0x5000, 0x7f, 0};
        state.idt = {0x6000, 0xfff, 0};
        state.clock_version = 24;
        for (unsigned i = 0; i < state.segments.size(); i++)
            state.segments[i].base += 0x1000 * i;
        state.xsave[40] = 0x5a; // a register of the x87
        state.events.is_nmi_blocked = 1;
        state.events.has_nmi = 1;
        state.events.has_init = state.events.has_startup = 1;
        state.events.startup_vector = 0x9a;
        state.events.put_off_interrupt = 0x55;
    });
    auto const first = std::make_unique<VcpuState>(*this->state);
    this->save();
    EXPECT_EQ(this->state->events.put_off_interrupt, 0x55);
    EXPECT_EQ(this->state->events.has_init, 1);
    EXPECT_EQ(this->state->registers, first->registers);
    EXPECT_EQ(this->state->cr2, first->cr2);
    EXPECT_EQ(this->state->apic.registers, first->apic.registers);
    EXPECT_EQ(std::memcmp(this->state.get(), first.get(), sizeof(VcpuState)), 0);
}

TYPED_TEST(SaveAndRestore, ARestoredGuestGoesOnWhereItWas) {
    this->guest().gpr(Gpr::Rbx) = 0x1234;
    u64 const begin = this->guest().rip();
    this->play({{Cause::Hypercall}});
    auto const cr0 = this->guest().cr0(), cr4 = this->guest().cr4(), efer = this->guest().efer();
    this->move();
    EXPECT_EQ(this->guest().rip(), begin + 3);
    EXPECT_EQ(this->guest().gpr(Gpr::Rbx), 0x1234U);
    EXPECT_EQ(this->guest().cr0(), cr0);
    EXPECT_EQ(this->guest().cr4(), cr4);
    EXPECT_EQ(this->guest().efer(), efer);
    EXPECT_EQ(this->play({{Cause::PortOut}}), RunResult::Work) << this->machine().end_text();
    EXPECT_EQ(this->guest().rip(), begin + 5);
}

TYPED_TEST(SaveAndRestore, TheGuestsTscGoesOnAsThoughItHadBeenPaused) {
    this->set_msr(vm::msr::IA32_TSC_ADJUST, 5'000);
    u64 const offset = this->guest().tsc_offset();
    this->cpu.tsc += 700'000;
    this->move();
    EXPECT_EQ(this->guest().tsc_offset(), offset);
    EXPECT_EQ(this->msr(vm::msr::IA32_TSC_ADJUST), 5'000U);
}

TYPED_TEST(SaveAndRestore, ATimerThatRunsGoesOnRunning) {
    auto& apic = this->guest().apic();
    apic.mmio_write(reg::LVT_TIMER, 4, 0x31);
    apic.mmio_write(reg::DIVIDE, 4, 0xb);
    apic.mmio_write(reg::INITIAL_COUNT, 4, 0x0100'0000);
    u32 const before = this->apic_register(reg::CURRENT_COUNT);
    this->move();
    EXPECT_TRUE(this->guest().apic().is_timer_running());
    u32 const after = this->apic_register(reg::CURRENT_COUNT);
    EXPECT_LE(after, before);
    EXPECT_GT(after, before / 2);
}

TYPED_TEST(SaveAndRestore, AnInterruptThatWaitsArrivesAfterwards) {
    this->guest().set_rflags(interrupts_off);
    this->send(0x41);
    this->move();
    this->guest().set_rflags(interrupts_on);
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), interrupt(0x41));
}

TYPED_TEST(SaveAndRestore, AnNmiThatWaitsArrivesAfterwards) {
    this->guest().post(vm::request::nmi);
    this->move();
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), non_maskable());
}

TYPED_TEST(SaveAndRestore, AnEventOnItsWayArrivesAfterwards) {
    this->move_with([](VcpuState& state) {
        state.events.is_on_its_way = 1;
        state.events.type = vm::event_type::exception;
        state.events.vector = 14;
        state.events.has_error_code = 1;
        state.events.error_code = 6;
    });
    this->save();
    EXPECT_EQ(this->state->events.is_on_its_way, 1);
    this->be_born_again();
    ASSERT_TRUE(this->restore());
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), fault(14, 6));
}

TYPED_TEST(SaveAndRestore, AGuestInItsNmiHandlerGetsNoSecondOne) {
    this->move_with([](VcpuState& state) { state.events.is_nmi_blocked = 1; });
    this->guest().post(vm::request::nmi);
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), Event{});
}

TYPED_TEST(SaveAndRestore, AHaltedGuestSleepsOnUntilAnInterrupt) {
    EXPECT_EQ(this->play({{Cause::Hlt}}), RunResult::Sleep);
    this->move();
    EXPECT_EQ(this->play({}), RunResult::Sleep);
    EXPECT_EQ(this->entry_count(), 0U);
    this->send(0x41);
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), interrupt(0x41));
}

TYPED_TEST(SaveAndRestore, AShadowLastsOverIt) {
    this->set_shadow();
    this->send(0x41);
    this->move();
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), Event{});
}

TYPED_TEST(SaveAndRestore, SavingChangesNothing) {
    this->send(0x41);
    this->save();
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), interrupt(0x41));
    auto const first = std::make_unique<VcpuState>();
    ASSERT_TRUE(this->guest().save(*first, moment));
    this->save();
    EXPECT_EQ(std::memcmp(this->state.get(), first.get(), sizeof(VcpuState)), 0);
}

TYPED_TEST(SaveAndRestore, AStateOfAnotherFormatIsRefused) {
    this->save();
    auto const whole = this->state->bytes();
    auto copy = std::make_unique<VcpuState>();
    EXPECT_TRUE(VcpuState::read(whole, *copy));
    EXPECT_FALSE(VcpuState::read(whole.first(whole.size() - 1), *copy));
    EXPECT_FALSE(VcpuState::read({}, *copy));
    for (std::size_t at : {std::size_t{0}, offsetof(VcpuState, version), offsetof(VcpuState, size),
                           offsetof(VcpuState, checksum), offsetof(VcpuState, rip), sizeof(VcpuState) - 1}) {
        std::vector<u8> bytes(whole.begin(), whole.end());
        bytes[at] ^= 1;
        EXPECT_FALSE(VcpuState::read(bytes, *copy)) << at;
        std::memcpy(static_cast<void*>(copy.get()), bytes.data(), bytes.size());
        EXPECT_FALSE(this->guest().restore(*copy, moment)) << at;
    }
}

TYPED_TEST(SaveAndRestore, AStateOfAnotherCpuIsRefused) {
    EXPECT_EQ(this->refusal([](VcpuState& state) { state.features++; }), Errc::Unsupported);
    EXPECT_EQ(this->refusal([](VcpuState& state) { state.id++; }), Errc::BadFormat);
}

// Each of these would have made the host fault, a device model divide by zero, or an entry be refused.
TYPED_TEST(SaveAndRestore, AStateInWhichNoCpuCanBeIsRefused) {
    struct Lie {
        char const* what;
        void (*tell)(VcpuState&);
    };
    static constexpr Lie lies[] = {
        {"paging without protection", [](VcpuState& s) { s.cr0 = vm::cr0::PG | vm::cr0::ET; }},
        {"bits that CR0 has not", [](VcpuState& s) { s.cr0 |= u64{1} << 40; }},
        {"bits that CR4 has not", [](VcpuState& s) { s.cr4 |= vm::cr4::VMXE; }},
        {"EFER.SVME", [](VcpuState& s) { s.efer |= vm::efer::SVME; }},
        {"EFER.LMA alone", [](VcpuState& s) { s.efer ^= vm::efer::LMA; }},
        {"XCR0 without x87", [](VcpuState& s) { s.xcr0 = 2; }},
        {"reserved flags", [](VcpuState& s) { s.rflags |= 8; }},
        {"flags without bit 1", [](VcpuState& s) { s.rflags &= ~u64{2}; }},
        {"RIP", [](VcpuState& s) { s.rip = u64{1} << 60; }},
        {"DR6", [](VcpuState& s) { s.dr6 |= u64{1} << 32; }},
        {"DR7", [](VcpuState& s) { s.dr7 |= u64{1} << 32; }},
        {"a base of FS", [](VcpuState& s) { s.segments[4].base = u64{1} << 60; }},
        {"a limit of the GDT", [](VcpuState& s) { s.gdt.limit = 0x1'0000; }},
        {"a base of the IDT", [](VcpuState& s) { s.idt.base = u64{1} << 60; }},
        {"an activity", [](VcpuState& s) { s.events.activity = 3; }},
        {"a shadow", [](VcpuState& s) { s.events.shadow = 3; }},
        {"a flag", [](VcpuState& s) { s.events.has_nmi = 2; }},
        {"a privilege level", [](VcpuState& s) { s.events.privilege_level = 4; }},
        {"an interrupt that was put off", [](VcpuState& s) { s.events.put_off_interrupt = 0x100; }},
        {"a pending trap", [](VcpuState& s) { s.events.pending_debug = u64{1} << 20; }},
        {"an event's type", [](VcpuState& s) { s.events.is_on_its_way = 1, s.events.type = 4; }},
        {"an exception's vector",
         [](VcpuState& s) { s.events.is_on_its_way = 1, s.events.type = 3, s.events.vector = 32; }},
        {"an NMI's vector", [](VcpuState& s) { s.events.is_on_its_way = 1, s.events.type = 2, s.events.vector = 3; }},
        {"the APIC's base", [](VcpuState& s) { s.apic.base |= 1; }},
        {"x2APIC without the APIC", [](VcpuState& s) { s.apic.base = 0xfee0'0400; }},
        {"a vector below 16", [](VcpuState& s) { s.apic.registers[reg::IRR / 16] = 1; }},
        {"a reserved bit of the LVT", [](VcpuState& s) { s.apic.registers[reg::LVT_ERROR / 16] |= 1U << 31; }},
        {"a register that is not there", [](VcpuState& s) { s.apic.registers[1] = 1; }},
        {"an open LVT of a disabled APIC",
         [](VcpuState& s) {
             s.apic.registers[reg::SVR / 16] = 0xff;
             s.apic.registers[reg::LVT_ERROR / 16] = 0x31;
         }},
        {"a period of 0",
         [](VcpuState& s) {
             s.apic.registers[reg::LVT_TIMER / 16] = 0x2'0031;
             s.apic.timer = {1, 0, 1, {}};
         }},
        {"a count above the initial one",
         [](VcpuState& s) {
             s.apic.registers[reg::INITIAL_COUNT / 16] = 1;
             s.apic.timer = {s.tsc + (u64{1} << 40), 1, 1, {}};
         }},
        {"two initial counts", [](VcpuState& s) { s.apic.timer.initial_count = 7; }},
        {"a timer's flag", [](VcpuState& s) { s.apic.timer.is_running = 2; }},
        {"too many MSRs", [](VcpuState& s) { s.msr_count = 65; }},
        {"an MSR that is not there", [](VcpuState& s) { s.msrs[0].index = 0x1234'5678; }},
        {"an MSR that is not kept", [](VcpuState& s) { s.msrs[0].index = vm::msr::IA32_EFER; }},
        {"the APIC's base as an MSR", [](VcpuState& s) { s.msrs[0].index = vm::msr::IA32_APIC_BASE; }},
        {"an address in an MSR", [](VcpuState& s) { s.msrs[0] = {vm::msr::IA32_LSTAR, 0, u64{1} << 60}; }},
        {"a KVM clock", [](VcpuState& s) { s.msrs[0] = {vm::msr::KVM_SYSTEM_TIME_NEW, 0, 2}; }},
        {"the size of XSAVE", [](VcpuState& s) { s.xsave_size--; }},
        {"the size of XSAVE, too", [](VcpuState& s) { s.xsave_size = ~0U; }},
        {"MXCSR", [](VcpuState& s) { s.xsave[27] = 0x80; }},
    };
    for (auto const& lie : lies)
        EXPECT_EQ(this->refusal(lie.tell), Errc::BadFormat) << lie.what;
    EXPECT_EQ(this->refusal([](VcpuState&) {}), Errc::NotFound) << "and the truth is taken";
}

} // namespace
} // namespace backends
