// SPDX-License-Identifier: MIT
#pragma once
// What a guest keeps in x87, SSE, AVX and XSAVE registers. The hypervisor itself uses none of them, so they stay in the
// CPU while the vCPU is loaded there.
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>

namespace vm {

// An XMM register.
struct Vector {
    lib::u64 low, high;
};

class FpuState {
public:
    FpuState() = default;
    ~FpuState();
    FpuState(FpuState const&) = delete;
    FpuState& operator=(FpuState const&) = delete;

    // `components`: what XCR0 may ever enable in this VM, 0 without XSAVE; `size`: the bytes these need.
    lib::Result<void> create(lib::u64 components, lib::u32 size);
    // `in_cpu`: what XCR0 is now, 0 if that is not known; `xcr0`: what it is to be.
    void load(lib::u64 xcr0, lib::u64 in_cpu);
    // `xcr0`: what it is now. Returns what it is afterwards.
    lib::u64 save(lib::u64 xcr0);
    // One register while all are in the CPU.
    Vector vector_in_cpu(lib::u64 xcr0, unsigned number);
    void set_vector_in_cpu(lib::u64 xcr0, unsigned number, Vector const& value);

    // What XSAVE or FXSAVE wrote last. Right as long as no CPU has loaded this state.
    std::span<lib::u8 const> area() const { return {area_, size_}; }
    // Takes such bytes. BadFormat: the CPU would refuse to load them; bits of MXCSR outside of `mxcsr_mask` are such.
    lib::Result<void> restore(std::span<lib::u8 const> area, lib::u32 mxcsr_mask);

private:
    lib::u8* vectors();
    lib::u8* area_ = nullptr;
    lib::u32 order_ = 0, size_ = 0;
    lib::u64 components_ = 0;
};

} // namespace vm
