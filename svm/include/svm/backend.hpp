// SPDX-License-Identifier: MIT
#pragma once
// AMD-V as a vm::Backend.
#include <svm/capabilities.hpp>
#include <vm/backend.hpp>

namespace svm {

using lib::HostPhys;

class Backend final : public vm::Backend {
public:
    // Fails with the reason and the remedy when this machine cannot do it.
    static std::expected<kernel::Own<Backend>, Refusal> create(Disabled const& disabled);
    ~Backend() override;

    std::string_view name() const override { return "AMD-V"; }
    void describe(lib::TextSink& sink) const override { capabilities_.describe(sink); }
    std::expected<void, Refusal> enable_on_this_cpu() override;
    void disable_on_this_cpu() override;
    void constrain(vm::PlatformFacts& facts) const override;
    bool has_tsc_scaling() const override { return false; }
    lib::Result<kernel::Own<vm::AddressSpace>> create_address_space() override;
    lib::Result<kernel::Own<vm::Vcpu>> create_vcpu(vm::Vm& vm, lib::u32 id) override;

    Capabilities const& capabilities() const { return capabilities_; }
    // The same for all vCPUs: every port is intercepted, and so is every MSR but those that a guest may have to itself.
    HostPhys io_permissions() const { return io_permissions_; }
    HostPhys msr_permissions() const { return msr_permissions_; }
    // The same, but for the x2APIC registers that x2AVIC keeps. Without x2AVIC they would be the machine's own.
    HostPhys x2avic_msr_permissions() const { return x2avic_msr_permissions_; }

private:
    Backend(Capabilities const& capabilities, Disabled const& disabled)
        : capabilities_(capabilities), disabled_(disabled) {}
    lib::Result<void> build();
    Capabilities capabilities_;
    Disabled disabled_;
    HostPhys io_permissions_{};
    HostPhys msr_permissions_{};
    HostPhys x2avic_msr_permissions_{};
};

} // namespace svm
