// SPDX-License-Identifier: MIT
// Command line and size of RAM from the PVH start info or the Multiboot information. [xen/pvh] hvm_start_info,
// [multiboot1] 3.3, [multiboot2] 3.6
#include "runtime/boot_info.hpp"

#include <algorithm>
#include <array>

extern "C" {
extern guest::u64 first_tsc;
extern guest::u32 boot_magic;
extern guest::u32 boot_info_address;
}

namespace guest {
namespace {

constexpr u32 multiboot_loaded = 0x2badb002, multiboot2_loaded = 0x36d76289, pvh_magic = 0x336ec578;
std::array<char, 512> command_line_copy;
std::size_t command_line_length;
u64 top = 32 * lib::MiB;

void copy_command_line(u64 address) {
    if (address == 0) return;
    while (command_line_length + 1 < command_line_copy.size()) {
        char const c = static_cast<char>(x86::load8(address + command_line_length));
        if (c == 0) return;
        command_line_copy[command_line_length++] = c;
    }
}

void consider_ram(u64 base, u64 size) {
    u64 const end = std::min(base + size, 3 * lib::GiB);
    if (base <= 16 * lib::MiB && end > 16 * lib::MiB) top = end;
}

} // namespace

void parse_boot_info() {
    u64 const info = boot_info_address;
    if (boot_magic == multiboot_loaded) {
        u32 const flags = x86::load32(info);
        if ((flags & 1) != 0) consider_ram(lib::MiB, u64{x86::load32(info + 8)} * lib::KiB);
        if ((flags & 4) != 0) copy_command_line(x86::load32(info + 16));
    } else if (boot_magic == multiboot2_loaded) {
        u64 const end = info + x86::load32(info);
        for (u64 at = info + 8; at + 8 <= end && x86::load32(at) != 0; at += (u64{x86::load32(at + 4)} + 7) / 8 * 8) {
            if (x86::load32(at) == 1) copy_command_line(at + 8);
            if (x86::load32(at) == 4) consider_ram(lib::MiB, u64{x86::load32(at + 12)} * lib::KiB);
        }
    } else if (info != 0 && x86::load32(info) == pvh_magic) {
        copy_command_line(x86::load64(info + 24));
        if (x86::load32(info + 4) >= 1) {
            u64 const map = x86::load64(info + 40);
            u32 const entries = x86::load32(info + 48);
            for (u32 i = 0; i < entries && i < 128; i++)
                if (x86::load32(map + i * 24 + 16) == 1)
                    consider_ram(x86::load64(map + i * 24), x86::load64(map + i * 24 + 8));
        }
    }
}

u64 first_instruction_tsc() { return first_tsc; }
u64 memory_top() { return top; }
std::string_view command_line() { return {command_line_copy.data(), command_line_length}; }

// The part in front of the separator. Not find(): that calls memchr, which nobody provides.
static std::string_view first_of(std::string_view text, char separator) {
    std::size_t length = 0;
    while (length < text.size() && text[length] != separator)
        length++;
    return text.substr(0, length);
}

std::string_view option(std::string_view name) {
    std::string_view rest = command_line();
    while (!rest.empty()) {
        auto const word = first_of(rest, ' ');
        if (word.size() > name.size() && word.starts_with(name) && word[name.size()] == '=')
            return word.substr(name.size() + 1);
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    }
    return {};
}

u64 option_number(std::string_view name, u64 otherwise) {
    auto const text = option(name);
    if (text.empty()) return otherwise;
    u64 value = 0;
    for (char const c : text) {
        if (c < '0' || c > '9') return otherwise;
        value = value * 10 + static_cast<u64>(c - '0');
    }
    return value;
}

bool option_lists(std::string_view name, std::string_view word) {
    std::string_view rest = option(name);
    while (!rest.empty()) {
        auto const first = first_of(rest, ',');
        if (first == word) return true;
        rest.remove_prefix(std::min(rest.size(), first.size() + 1));
    }
    return false;
}

} // namespace guest
