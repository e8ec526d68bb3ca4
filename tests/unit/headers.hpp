// SPDX-License-Identifier: MIT
// What nearly every unit test includes, compiled once for all of them. A test still includes what it uses.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <concepts>
#include <expected>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
