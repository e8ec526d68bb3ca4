#pragma once
// What a guest keeps in x87, SSE, AVX and XSAVE registers. The hypervisor itself uses none of them, so they stay in the
// CPU while the vCPU is loaded there.
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace vm {

class FpuState {
public:
    FpuState() = default;
    ~FpuState();
    FpuState(FpuState const&) = delete;
    FpuState& operator=(FpuState const&) = delete;

    // `components`: what XCR0 may ever enable in this VM, 0 without XSAVE; `size`: the bytes these need.
    lib::Result<void> create(lib::u64 components, lib::u32 size);
    void load(lib::u64 xcr0);
    void save();

private:
    lib::u8* area_ = nullptr;
    lib::u32 order_ = 0;
    lib::u64 components_ = 0;
};

} // namespace vm
