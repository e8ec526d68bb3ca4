// SPDX-License-Identifier: MIT
#pragma once
// All RAM is mapped at one offset, so that a frame is reached by an addition.
#include <lib/types.hpp>

namespace kernel {

using lib::HostPhys;
using lib::u64;

#if __STDC_HOSTED__
// Hosted tests: a "physical" address is an address of the test process.
inline constexpr u64 direct_map_base = 0;
#else
inline constexpr u64 direct_map_base = 0xffff'8000'0000'0000;
#endif
inline constexpr u64 kernel_base = 0xffff'ffff'8000'0000; // linker/mullion.ld

template <typename T = void> T* phys_to_virt(HostPhys address) {
    return reinterpret_cast<T*>(address.value + direct_map_base);
}
// Only for pointers into the direct map.
inline HostPhys virt_to_phys(void const* pointer) { return HostPhys{reinterpret_cast<u64>(pointer) - direct_map_base}; }
// Only for objects of the image: code, constants, data, bss.
inline HostPhys image_to_phys(void const* pointer) { return HostPhys{reinterpret_cast<u64>(pointer) - kernel_base}; }

} // namespace kernel
