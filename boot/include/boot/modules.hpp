#pragma once
// The files that the loader brought along. They stay where they are: a VM that restarts is loaded from them again.
#include <boot/multiboot2.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/format.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace boot {

class Modules {
public:
    struct Module {
        std::string_view name; // the first word of the module's string
        std::span<u8 const> bytes;
    };
    static constexpr u32 capacity = 48;

    void add_all(Multiboot2 const& information);
    std::span<u8 const> const* find(std::string_view name) const;
    // The VM description: the first module called vms.toml or config, or whose name ends in .toml.
    Module const* description() const;
    u32 count() const { return static_cast<u32>(modules_.size()); }
    // All names, for messages.
    void list(lib::TextSink& sink) const;

private:
    lib::FixedVector<Module, capacity> modules_;
};

} // namespace boot
