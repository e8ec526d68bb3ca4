// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <kernel/cpu.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <lib/memory.hpp>
#include <lib/x86/instructions.hpp>
#include <vm/control_registers.hpp>
#include <vm/fpu_state.hpp>

namespace vm {
namespace {

namespace x86 = lib::x86;
using lib::u16;
using lib::u32;
using lib::u8;

// The legacy area at reset. [intel/vol1] 10.5.1, [intel/vol3] table 10-1
constexpr u32 legacy_size = 512, mxcsr_offset = 24, mxcsr_at_reset = 0x1f80;
constexpr u16 fcw_at_reset = 0x37f;
constexpr u32 vectors_offset = 160, vectors_size = 256;
constexpr u32 xstate_bv_offset = 512, xcomp_bv_offset = 520, header_end = 576;

} // namespace

FpuState::~FpuState() {
    if (area_ != nullptr) kernel::free_frames(kernel::virt_to_phys(area_), order_);
}

lib::Result<void> FpuState::create(lib::u64 components, u32 size) {
    if (components == 0) size = legacy_size;
    components_ = components;
    size_ = size;
    order_ = static_cast<u32>(std::bit_width((size - 1) / lib::page_size));
    area_ = kernel::phys_to_virt<u8>(TRY(kernel::allocate_frames(order_)));
    std::memset(area_, 0, lib::page_size << order_);
    std::memcpy(area_, &fcw_at_reset, sizeof(fcw_at_reset));
    std::memcpy(area_ + mxcsr_offset, &mxcsr_at_reset, sizeof(mxcsr_at_reset));
    return {};
}

void FpuState::load(lib::u64 xcr0, lib::u64 in_cpu) {
    // Without an exception pending, an AMD CPU does not load the pointers, and the last guest's would be this one's.
    // [amd/vol2] 11.4.4
    if (kernel::cpu_features().leaks_x87_pointers) x86::replace_x87_pointers();
    if (components_ == 0) {
        x86::fxrstor(area_);
        return;
    }
    // Everything, whatever of it the guest has turned on at the moment.
    if (in_cpu != components_) x86::xsetbv(0, components_);
    x86::xrstor(area_, components_);
    if (xcr0 != components_) x86::xsetbv(0, xcr0);
}

lib::u64 FpuState::save(lib::u64 xcr0) {
    if (components_ == 0) {
        x86::fxsave(area_);
        return 0;
    }
    if (xcr0 != components_) x86::xsetbv(0, components_);
    x86::xsave(area_, components_);
    return components_;
}

// XRSTOR and FXRSTOR fault on reserved bits of MXCSR, XRSTOR also on components that XCR0 has not and on anything else
// in the header of the standard format. [intel/vol1] 13.8.1, 13.8.2
lib::Result<void> FpuState::restore(std::span<u8 const> area, u32 mxcsr_mask) {
    if (area.size() != size_) return lib::fail(lib::Errc::BadFormat);
    if ((lib::load<u32>(&area[mxcsr_offset]) & ~mxcsr_mask) != 0) return lib::fail(lib::Errc::BadFormat);
    if (components_ != 0) {
        bool const is_loadable = (lib::load<lib::u64>(&area[xstate_bv_offset]) & ~components_) == 0 &&
                                 std::ranges::all_of(area.subspan(xcomp_bv_offset, header_end - xcomp_bv_offset),
                                                     [](u8 byte) { return byte == 0; });
        if (!is_loadable) return lib::fail(lib::Errc::BadFormat);
    }
    std::ranges::copy(area, area_);
    return {};
}

// The XMM registers in memory, which count from now on. XSAVE may have said that they hold their initial zeros.
// [intel/vol1] 13.4.1, 13.6
u8* FpuState::vectors() {
    u8* const at = area_ + vectors_offset;
    if (components_ == 0) return at;
    auto const present = lib::load<lib::u64>(area_ + xstate_bv_offset);
    if ((present & xcr0::SSE) == 0) std::memset(at, 0, vectors_size);
    lib::store(area_ + xstate_bv_offset, present | xcr0::SSE);
    return at;
}

Vector FpuState::vector_in_cpu(lib::u64 xcr0, unsigned number) {
    lib::u64 const in_cpu = save(xcr0);
    u8 const* const at = vectors() + sizeof(Vector) * (number & 15U);
    Vector const value{lib::load<lib::u64>(at), lib::load<lib::u64>(at + 8)};
    load(xcr0, in_cpu);
    return value;
}

void FpuState::set_vector_in_cpu(lib::u64 xcr0, unsigned number, Vector const& value) {
    lib::u64 const in_cpu = save(xcr0);
    u8* const at = vectors() + sizeof(Vector) * (number & 15U);
    lib::store(at, value.low);
    lib::store(at + 8, value.high);
    load(xcr0, in_cpu);
}

} // namespace vm
