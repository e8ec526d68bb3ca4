// SPDX-License-Identifier: MIT
#pragma once
// What a CPU vendor's virtualization offers, implemented by vmx and svm. A VMCS or VMCB is visible in neither
// direction.
#include <expected>
#include <kernel/heap.hpp>
#include <lib/format.hpp>
#include <lib/result.hpp>
#include <vm/address_space.hpp>
#include <vm/cpuid_policy.hpp>

namespace vm {

class Vcpu;
class Vm;

// Why this machine's virtualization cannot be used, and what the administrator can do about it.
struct Refusal {
    std::string_view what;
    std::string_view remedy;
};

class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string_view name() const = 0;
    // The optional features in use, one word each, for the log.
    virtual void describe(lib::TextSink& sink) const = 0;
    // On each CPU before it runs a vCPU; one that refuses is left out.
    virtual std::expected<void, Refusal> enable_on_this_cpu() = 0;
    virtual void disable_on_this_cpu() = 0;
    // What CPUID may offer beyond the allow-list because this backend switches or intercepts it.
    virtual void constrain(PlatformFacts& facts) const = 0;
    // Whether a VM's TSC may have another rate than the machine's.
    virtual bool has_tsc_scaling() const = 0;
    virtual lib::Result<kernel::Own<AddressSpace>> create_address_space() = 0;
    virtual lib::Result<kernel::Own<Vcpu>> create_vcpu(Vm& vm, lib::u32 id) = 0;
};

} // namespace vm
