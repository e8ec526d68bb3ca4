// SPDX-License-Identifier: MIT
#pragma once
// What one port has sent and received, and why frames were dropped.
#include <lib/service_board.hpp>

namespace network {

using Drop = lib::service::FrameDrop;
using Statistics = lib::service::PortStatistics;

} // namespace network
