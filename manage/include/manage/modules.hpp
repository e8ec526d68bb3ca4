// SPDX-License-Identifier: MIT
#pragma once
// The files that the loader brought along. They stay where they are: a VM that restarts is loaded from them again.
#include <lib/fixed_vector.hpp>
#include <lib/format.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace manage {

using lib::u32;
using lib::u8;

class Modules {
public:
    struct Module {
        std::string_view name; // the first word of the module's string
        std::span<u8 const> bytes;
    };
    static constexpr u32 capacity = 48;

    // `string`: what stood after the file in the boot loader's configuration. False: there are too many.
    bool add(std::string_view string, std::span<u8 const> bytes);
    std::span<u8 const> const* find(std::string_view name) const;
    // The VM description: the first module called vms.toml or config, or whose name ends in .toml.
    Module const* description() const;
    std::span<Module const> all() const { return modules_.span(); }
    u32 count() const { return static_cast<u32>(modules_.size()); }
    // All names, for messages.
    void list(lib::TextSink& sink) const;

private:
    lib::FixedVector<Module, capacity> modules_;
};

} // namespace manage
