// SPDX-License-Identifier: MIT
#include "vmx/machine.hpp"

#include <algorithm>
#include <cctype>
#include <string>
#include <vmx/capabilities.hpp>

namespace {

using intel_machine::control;
using intel_machine::VmxMsrs;
using lib::u32;
using lib::u64;
using namespace vmx;

TEST(Adjust, TakesWhatIsWantedAndPossible) {
    auto const got = adjust(PinControls{{0b1100}}, PinControls{{0b0001}}, control(0b0010, 0b0101));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->raw, 0b0111U); // required, wanted where allowed, and what the CPU insists on
}

TEST(Adjust, RefusesWhenARequiredBitCannotBeSet) {
    EXPECT_EQ(adjust(PinControls{}, PinControls{{0b1000}}, control(0b0010, 0b0111)).error(), lib::Errc::Unsupported);
    static_assert(!adjust(PinControls{}, PinControls{{1}}, 0));
}

class CapabilitiesTest : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    VmxMsrs msrs = intel_machine::skylake();
    CapabilitiesTest() { cpu.set_cpuid(1, {0, 0, 1U << 5, 0}); }
    Capabilities read(Disabled const& disabled = {}) {
        intel_machine::populate(cpu, msrs);
        auto const result = read_capabilities(disabled);
        EXPECT_TRUE(result) << result.error().what;
        if (result) check(*result);
        return result.value_or(Capabilities{});
    }
    Refusal refusal(Disabled const& disabled = {}) {
        intel_machine::populate(cpu, msrs);
        auto const result = read_capabilities(disabled);
        EXPECT_FALSE(result);
        if (result) return {};
        EXPECT_FALSE(result.error().what.empty() || result.error().remedy.empty());
        return result.error();
    }

private:
    static void expect_accepted(char const* name, u32 value, u64 capability) {
        auto const must = static_cast<u32>(capability);
        EXPECT_EQ(value & must, must) << name;
        EXPECT_EQ(value & ~static_cast<u32>(capability >> 32), 0U) << name;
    }
    // What VM entry checks of every control word. [intel/vol3] 27.2.1
    void check(Capabilities const& c) {
        bool const has_true = (msrs.basic >> 55 & 1) != 0;
        expect_accepted("pin", c.pin.raw, has_true ? msrs.true_pin : msrs.pin);
        expect_accepted("cpu", c.cpu.raw, has_true ? msrs.true_cpu : msrs.cpu);
        expect_accepted("cpu2", c.cpu2.raw, msrs.cpu2);
        expect_accepted("exit", c.exit.raw, has_true ? msrs.true_exit : msrs.exit);
        expect_accepted("entry", c.entry.raw, has_true ? msrs.true_entry : msrs.entry);
        if (!c.has_tpr_shadow()) {
            EXPECT_FALSE(c.has_x2apic_mode() || c.has_register_virtualization() || c.has_interrupt_delivery());
            EXPECT_TRUE(c.cpu.get<CpuControls::Cr8LoadExiting>() && c.cpu.get<CpuControls::Cr8StoreExiting>());
        }
        if (c.has_posted_interrupts()) {
            EXPECT_TRUE(c.has_interrupt_delivery() && c.exit.get<ExitControls::AcknowledgeInterrupt>());
        }
        if (c.has_interrupt_delivery()) {
            EXPECT_TRUE(c.pin.get<PinControls::ExternalInterruptExiting>());
        }
        if (c.cpu2.get<CpuControls2::UnrestrictedGuest>()) {
            EXPECT_TRUE(c.cpu2.get<CpuControls2::EnableEpt>());
        }
        // Whatever a guest could use to reach the machine exits.
        using C = CpuControls;
        for (u32 const bit : {u32{C::HltExiting::mask}, u32{C::MwaitExiting::mask}, u32{C::MonitorExiting::mask},
                              u32{C::RdpmcExiting::mask}, u32{C::UnconditionalIoExiting::mask},
                              u32{C::UseMsrBitmaps::mask}, u32{C::ActivateSecondaryControls::mask}})
            EXPECT_NE(c.cpu.raw & bit, 0U) << std::hex << bit;
        EXPECT_FALSE(c.cpu.get<C::InterruptWindowExiting>() || c.cpu.get<C::NmiWindowExiting>());
        EXPECT_FALSE(c.cpu.get<C::UseIoBitmaps>());
    }
};

TEST_F(CapabilitiesTest, AServerHasItAll) {
    auto const c = read();
    EXPECT_TRUE(c.has_vpid() && c.has_tpr_shadow() && c.has_apic_accesses() && c.has_x2apic_mode());
    EXPECT_TRUE(c.has_register_virtualization() && c.has_interrupt_delivery() && c.has_posted_interrupts());
    EXPECT_TRUE(c.has_preemption_timer() && c.has_pages_1g());
    EXPECT_FALSE(c.pin.get<PinControls::ActivatePreemptionTimer>()); // on only while it runs
    EXPECT_EQ(c.preemption_timer_shift, 7);
    EXPECT_EQ(c.basic.get<BasicInfo::Revision>(), 4U);
}

TEST_F(CapabilitiesTest, AClientHasNoVirtualInterrupts) {
    msrs = intel_machine::haswell();
    auto const c = read();
    EXPECT_TRUE(c.has_vpid() && c.has_tpr_shadow() && c.has_apic_accesses());
    EXPECT_FALSE(c.has_register_virtualization() || c.has_interrupt_delivery() || c.has_posted_interrupts());
    EXPECT_FALSE(c.cpu2.get<CpuControls2::EnableXsaves>());
}

TEST_F(CapabilitiesTest, WithoutTrueControlsTheirDefaultsStay) {
    msrs.basic &= ~(u64{1} << 55);
    auto const c = read();
    EXPECT_TRUE(c.cpu.get<CpuControls::Cr3LoadExiting>()); // must be 1 there
}

TEST_F(CapabilitiesTest, NoVtx) {
    cpu.set_cpuid(1, {0, 0, 0, 0});
    EXPECT_NE(refusal().what.find("no VT-x"), std::string_view::npos);
}

TEST_F(CapabilitiesTest, LockedOffByFirmware) {
    intel_machine::populate(cpu, msrs);
    cpu.populate_msr(0x3a, 1);
    auto const result = read_capabilities({});
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().what.find("firmware"), std::string_view::npos);
    EXPECT_NE(result.error().remedy.find("firmware setup"), std::string_view::npos);
    cpu.populate_msr(0x3a, 0); // open: we may turn it on
    EXPECT_TRUE(read_capabilities({}));
    cpu.remove_msr(0x3a);
    EXPECT_FALSE(read_capabilities({}));
}

TEST_F(CapabilitiesTest, NoEpt) {
    msrs.cpu2 &= ~(u64{2} << 32 | u64{0x80} << 32);
    EXPECT_NE(refusal().what.find("no EPT"), std::string_view::npos);
}

TEST_F(CapabilitiesTest, NoSecondaryControls) {
    msrs.true_cpu &= ~(u64{1} << 63);
    EXPECT_NE(refusal().what.find("no EPT"), std::string_view::npos);
    EXPECT_EQ(cpu.rdmsr_counts[0x48b], 0U); // it does not exist there
}

TEST_F(CapabilitiesTest, NoUnrestrictedGuest) {
    msrs.cpu2 &= ~(u64{0x80} << 32);
    EXPECT_NE(refusal().what.find("unrestricted"), std::string_view::npos);
}

TEST_F(CapabilitiesTest, EveryOtherNeedIsSaidToo) {
    for (u64 VmxMsrs::* word : {&VmxMsrs::true_pin, &VmxMsrs::true_exit, &VmxMsrs::true_entry, &VmxMsrs::ept_vpid}) {
        msrs = intel_machine::skylake();
        msrs.*word = 0;
        refusal();
    }
}

TEST_F(CapabilitiesTest, SmallPagesAndNoVpid) {
    msrs.ept_vpid &= ~(u64{3} << 16 | u64{1} << 32);
    auto const c = read();
    EXPECT_FALSE(c.has_pages_1g() || c.has_vpid());
}

TEST_F(CapabilitiesTest, EachWordTurnsOffWhatItNames) {
    struct Case {
        char const* word;
        bool (*is_off)(Capabilities const&);
    };
    constexpr Case cases[] = {
        {"vpid", [](Capabilities const& c) { return !c.has_vpid(); }},
        {"tpr-shadow", [](Capabilities const& c) { return !c.has_tpr_shadow() && !c.has_interrupt_delivery(); }},
        {"apic-registers",
         [](Capabilities const& c) {
             return !c.has_register_virtualization() && !c.has_interrupt_delivery() && c.has_tpr_shadow();
         }},
        {"virtual-interrupts",
         [](Capabilities const& c) {
             return !c.has_interrupt_delivery() && !c.has_posted_interrupts() && c.has_register_virtualization();
         }},
        {"x2apic", [](Capabilities const& c) { return !c.has_x2apic_mode() && c.has_apic_accesses(); }},
        {"posted-interrupts",
         [](Capabilities const& c) { return !c.has_posted_interrupts() && c.has_interrupt_delivery(); }},
        {"preemption-timer", [](Capabilities const& c) { return !c.has_preemption_timer(); }},
        {"large-pages",
         [](Capabilities const& c) { return !c.has_pages_1g() && !c.ept_vpid.get<EptVpidCapabilities::Pages2m>(); }},
        {"xsaves", [](Capabilities const& c) { return !c.cpu2.get<CpuControls2::EnableXsaves>(); }},
        {"invpcid", [](Capabilities const& c) { return !c.cpu2.get<CpuControls2::EnableInvpcid>(); }},
        {"pause-loop", [](Capabilities const& c) { return !c.has_pause_loop_exiting(); }},
        {"tsc-scaling", [](Capabilities const& c) { return !c.cpu2.get<CpuControls2::UseTscScaling>(); }},
    };
    std::string all_words;
    for (auto const& [word, is_off] : cases) {
        Disabled disabled;
        EXPECT_TRUE(disabled.parse(word)) << word;
        EXPECT_TRUE(is_off(read(disabled))) << word;
        EXPECT_NE(Disabled::known_words().find(word), std::string_view::npos) << word;
        all_words += std::string(all_words.empty() ? "" : ",") + word;
    }
    for (std::string_view const words : {std::string_view{"all"}, std::string_view{all_words}}) {
        Disabled disabled;
        EXPECT_TRUE(disabled.parse(words));
        auto const c = read(disabled);
        for (auto const& [word, is_off] : cases)
            if (std::string_view(word) != "apic-registers" && std::string_view(word) != "virtual-interrupts" &&
                std::string_view(word) != "x2apic" && std::string_view(word) != "posted-interrupts") {
                EXPECT_TRUE(is_off(c)) << word;
            }
        EXPECT_FALSE(c.has_x2apic_mode() || c.has_register_virtualization());
    }
}

TEST_F(CapabilitiesTest, UnknownWordsAreRefused) {
    for (auto const* const words : {"vpids", "vpid,", "vpid,,xsaves", "vpid nonsense", ",", "ALL"}) {
        Disabled disabled;
        bool const is_only_a_last_comma = std::string_view(words) == "vpid,";
        EXPECT_EQ(disabled.parse(words), is_only_a_last_comma) << words;
    }
    Disabled disabled;
    EXPECT_TRUE(disabled.parse(""));
    EXPECT_FALSE(disabled.vpid);
}

struct Model {
    char const* name;
    VmxMsrs msrs;
    std::string_view refusal;
};
constexpr Model models[] = {
#define VMX_MODEL(name, basic, pin, cpu, exit, entry, misc, cpu2, ept_vpid, true_pin, true_cpu, true_exit, true_entry, \
                  refusal)                                                                                             \
    {name,                                                                                                             \
     {basic, pin, cpu, exit, entry, misc, 0x8000'0021, 0xffff'ffff, 0x2000, 0x0037'67ff, cpu2, ept_vpid, true_pin,     \
      true_cpu, true_exit, true_entry},                                                                                \
     refusal},
#include "vmx/models.inc"
#undef VMX_MODEL
};

TEST_F(CapabilitiesTest, EveryKnownModelIsUsedOrRefusedWithTheTrueReason) {
    for (Model const& model : models) {
        SCOPED_TRACE(model.name);
        msrs = model.msrs;
        if (!model.refusal.empty()) {
            EXPECT_NE(refusal().what.find(model.refusal), std::string_view::npos) << refusal().what;
            continue;
        }
        auto const c = read();
        u64 const may = msrs.cpu2 >> 32;
        EXPECT_EQ(c.has_vpid(), (may >> 5 & 1) != 0 && (msrs.ept_vpid >> 32 & 1) != 0);
        EXPECT_EQ(c.has_interrupt_delivery(), (may & 0x311) == 0x311);
        EXPECT_EQ(c.has_posted_interrupts(), c.has_interrupt_delivery() && (msrs.true_pin >> 39 & 1) != 0);
        EXPECT_EQ(c.has_preemption_timer(), (msrs.true_pin >> 38 & 1) != 0);
        EXPECT_EQ(c.has_pages_1g(), (msrs.ept_vpid >> 17 & 1) != 0);
    }
}

TEST_F(CapabilitiesTest, ACpuThatCannotAcknowledgeInterruptsIsToldSo) {
    msrs.true_exit &= ~(u64{1} << (32 + 15));
    EXPECT_NE(refusal().what.find("acknowledge an interrupt"), std::string_view::npos) << refusal().what;
}

TEST_F(CapabilitiesTest, OnlyImmuneCpusExecuteLargePages) {
    cpu.set_cpuid(0, {7, 0, 0, 0});
    auto const is_affected = [&](u32 signature) {
        cpu.set_cpuid(1, {signature, 0, 1U << 5, 0});
        return read().has_itlb_multihit;
    };
    EXPECT_TRUE(is_affected(0x0005'0654)); // Skylake
    EXPECT_FALSE(is_affected(0x0005'06c9)) << "Goldmont";
    EXPECT_FALSE(is_affected(0x0008'0650)) << "Knights Mill";
    cpu.set_cpuid(7, {0, 0, 0, 1U << 29});
    cpu.populate_read_only_msr(0x10a, 0x2b);
    EXPECT_TRUE(is_affected(0x0005'0654)) << "IF_PSCHANGE_MC_NO is clear";
    cpu.populate_read_only_msr(0x10a, 0x6b);
    EXPECT_FALSE(is_affected(0x0005'0654));
    cpu.remove_msr(0x10a); // as under a hypervisor that forgot it
    EXPECT_TRUE(is_affected(0x0005'0654));
}

TEST_F(CapabilitiesTest, DescribesItself) {
    std::array<char, 512> text{};
    lib::BufferSink sink(text);
    read().describe(sink);
    EXPECT_NE(sink.view().find("VPID"), std::string_view::npos);
    EXPECT_NE(sink.view().find("posted-interrupts"), std::string_view::npos);
}

} // namespace
