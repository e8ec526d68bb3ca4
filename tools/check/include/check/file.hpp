// SPDX-License-Identifier: MIT
#pragma once
// A file in memory, read as a whole.
#include <cstdlib>
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace check {

using lib::u8;

// A path with its final zero, from pieces; is_valid() is false when it is too long.
class Path {
public:
    static constexpr std::size_t capacity = 4096;
    void append(std::string_view text) {
        for (char const c : text)
            if (used_ < capacity) text_[used_++] = c;
        text_[used_ < capacity ? used_ : capacity - 1] = 0;
    }
    bool is_valid() const { return used_ < capacity; }
    char const* c_str() const { return text_; }
    std::string_view view() const { return {text_, used_}; }

private:
    char text_[capacity]{};
    std::size_t used_ = 0;
};

class File {
public:
    File() = default;
    File(File const&) = delete;
    File& operator=(File const&) = delete;
    ~File() { std::free(bytes_); }

    // False: errno says why. At most 4 GiB.
    bool read(char const* path);
    std::span<u8 const> bytes() const { return {bytes_, size_}; }
    std::string_view text() const { return {reinterpret_cast<char const*>(bytes_), size_}; }

private:
    u8* bytes_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace check
