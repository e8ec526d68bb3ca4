// SPDX-License-Identifier: MIT
#pragma once
// The bytes of a fuzzer's input, taken one value after the other; zeroes where they end.
#include <algorithm>
#include <cstring>
#include <lib/types.hpp>
#include <span>

namespace fuzz {

class Input {
public:
    explicit Input(std::span<lib::u8 const> bytes) : bytes_(bytes) {}
    bool is_empty() const { return bytes_.empty(); }
    template <typename T> T take() {
        T value{};
        std::size_t const count = std::min(sizeof(T), bytes_.size());
        std::memcpy(&value, bytes_.data(), count);
        bytes_ = bytes_.subspan(count);
        return value;
    }

private:
    std::span<lib::u8 const> bytes_;
};

} // namespace fuzz
