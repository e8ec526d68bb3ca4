// SPDX-License-Identifier: MIT
#pragma once
// Intel VT-x as a vm::Backend.
#include <vm/backend.hpp>
#include <vmx/capabilities.hpp>

namespace vmx {

class Backend final : public vm::Backend {
public:
    // Fails with the reason and the remedy when this machine cannot do it.
    static std::expected<kernel::Own<Backend>, Refusal> create(Disabled const& disabled);

    std::string_view name() const override { return "VT-x"; }
    void describe(lib::TextSink& sink) const override { capabilities_.describe(sink); }
    std::expected<void, Refusal> enable_on_this_cpu() override;
    void disable_on_this_cpu() override;
    void constrain(vm::PlatformFacts& facts) const override;
    bool has_tsc_scaling() const override { return capabilities_.has_tsc_scaling(); }
    lib::Result<kernel::Own<vm::AddressSpace>> create_address_space() override;
    lib::Result<kernel::Own<vm::Vcpu>> create_vcpu(vm::Vm& vm, lib::u32 id) override;

    Capabilities const& capabilities() const { return capabilities_; }
    // A VMCS or VMXON region with its revision in place.
    lib::Result<lib::HostPhys> allocate_region() const;
    // VPIDs are never reused while the machine runs out of them only after 65535 vCPUs; then 0: run without.
    lib::u16 next_vpid();

private:
    Backend(Capabilities const& capabilities, Disabled const& disabled)
        : capabilities_(capabilities), disabled_(disabled) {}
    Capabilities capabilities_;
    Disabled disabled_;
    std::atomic<lib::u32> vpids_{0};
};

} // namespace vmx
