// SPDX-License-Identifier: MIT
// Random ELF and Multiboot kernels: nothing is written outside of guest memory (the sanitizer watches the edges),
// nothing hangs, no more is written than there is memory, and what is loaded starts in RAM.
#include "../unit/loader/fake_guest.hpp"
#include <cstdlib>
#include <loader/image.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static fakes::Guest guest(2 * lib::MiB);
    if (size < 2) return 0;
    auto const kind = static_cast<lib::BootKind>(data[0] % 6);
    std::vector<lib::u8> const initrd(std::size_t{data[1]} * 16);
    std::vector<lib::u8> const kernel(data + 2, data + size);
    loader::detect_image(kernel);
    loader::BootModule const modules[] = {{initrd, "first a=1"},
                                          {std::span(initrd).first(initrd.size() / 2), "second"}};
    loader::BootCopies copies;
    auto const state = loader::load_guest(kind,
                                          {.kernel = kernel,
                                           .initrd = initrd,
                                           .command_line = "x",
                                           .memory_map = guest.map,
                                           .copies = &copies,
                                           .modules = std::span(modules).first(data[1] % 3)},
                                          guest.memory());
    // No file makes a loader write more than there is memory, the initrd and the modules.
    constexpr lib::u64 slice = 64 * lib::KiB;
    for (lib::u64 written = 0; !copies.go_on(guest.memory(), slice); written += slice)
        if (written > 2 * lib::MiB + 3 * initrd.size()) std::abort();
    if (!state) {
        if (fakes::text_of(state.error()).empty()) std::abort();
        return 0;
    }
    if (!guest.memory().contains(lib::GuestPhys{state->rip}, 1)) std::abort();
    return 0;
}
