// SPDX-License-Identifier: MIT
#pragma once
// What each CPU gets before it runs guests: the firmware's limits lifted, the newest microcode, virtualization turned
// on.
#include <boot/multiboot2.hpp>
#include <expected>
#include <lib/fixed_vector.hpp>
#include <vm/backend.hpp>

namespace boot {

class CpuSetup {
public:
    // Takes the modules whose name begins with "microcode".
    void find_microcode(Multiboot2 const& information);
    // Needs the IDT. CPUID is read again afterwards.
    void prepare_boot_cpu();
    void set_backend(vm::Backend& backend) { backend_ = &backend; }
    std::expected<void, vm::Refusal> prepare_other_cpu();

private:
    static constexpr u32 most_files = 8;
    lib::FixedVector<std::span<u8 const>, most_files> files_;
    vm::Backend* backend_ = nullptr;
};

} // namespace boot
