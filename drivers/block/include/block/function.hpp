// SPDX-License-Identifier: MIT
#pragma once
// A PCI function as its driver reaches it.
#include <lib/device_function.hpp>

namespace block {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using Function = lib::DeviceFunction;

} // namespace block
