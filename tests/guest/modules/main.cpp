// SPDX-License-Identifier: MIT
// Says what modules the loader gave it, as Multiboot and Multiboot2 tell: command line, size and a sum of the bytes.
// Looks itself whether they lie in memory that is theirs. [multiboot1] 3.3, [multiboot2] 3.6.6
#include "runtime/runtime.hpp"

#include <array>

extern "C" {
extern guest::u32 boot_magic, boot_info_address;
extern char image_end[];
}

namespace {

using namespace guest;

constexpr u32 multiboot1_loaded = 0x2badb002, multiboot2_loaded = 0x36d76289;

struct Module {
    u64 begin, end, text;
};
std::array<Module, 16> modules;
u32 module_count;

void add(Module const& module) {
    if (module_count < modules.size()) modules[module_count++] = module;
}

void read_multiboot1(u64 info) {
    u32 const has_modules = 1 << 3;
    if ((x86::load32(info) & has_modules) == 0) return;
    u64 at = x86::load32(info + 24);
    for (u32 left = x86::load32(info + 20); left != 0; left--, at += 16)
        add({x86::load32(at), x86::load32(at + 4), x86::load32(at + 8)});
}

void read_multiboot2(u64 info) {
    u64 const end = info + x86::load32(info);
    u32 const end_tag = 0, module_tag = 3;
    for (u64 at = info + 8; at + 8 <= end;) {
        u32 const type = x86::load32(at), size = x86::load32(at + 4);
        if (type == end_tag) return;
        if (type == module_tag) add({x86::load32(at + 8), x86::load32(at + 12), at + 16});
        at += (u64{size} + 7) / 8 * 8;
    }
    fail("Multiboot2 information ends with a tag", 1, 0);
}

std::string_view text_at(u64 address) {
    auto const* const text = reinterpret_cast<char const*>(address);
    std::size_t length = 0;
    while (length < 4096 && text[length] != 0)
        length++;
    return {text, length};
}

} // namespace

void guest_main() {
    if (boot_magic == multiboot1_loaded)
        read_multiboot1(boot_info_address);
    else if (boot_magic == multiboot2_loaded)
        read_multiboot2(boot_info_address);
    else
        fail("the loader's magic number", multiboot2_loaded, boot_magic);
    for (u32 i = 0; i < module_count; i++) {
        Module const& module = modules[i];
        expect("it is aligned to a page", 0, module.begin % 4096);
        expect_true("it is above the kernel", module.begin >= reinterpret_cast<u64>(image_end));
        expect_true("its end is not before its start", module.end >= module.begin);
        expect_true("it is in RAM", module.end <= memory_top());
        for (u32 other = 0; other < i; other++)
            expect_true("modules are apart", module.end <= modules[other].begin || module.begin >= modules[other].end);
        u64 sum = 0;
        for (u64 at = module.begin; at < module.end; at++)
            sum = sum * 31 + x86::load8(at);
        print("guest: module {} \"{}\" {} bytes sum {:#x}\n", i, text_at(module.text), module.end - module.begin,
              sum & 0xffff'ffff);
    }
    print("guest: {} modules by Multiboot{}\n", module_count, boot_magic == multiboot1_loaded ? 1 : 2);
}
