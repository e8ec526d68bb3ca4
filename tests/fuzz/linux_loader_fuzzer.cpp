// SPDX-License-Identifier: MIT
// Random kernels with a believable header: nothing is written outside of guest memory (the sanitizer watches the
// edges), and what is loaded lies in RAM.
#include "../unit/loader/fake_guest.hpp"
#include <cstdlib>
#include <loader/linux_loader.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static fakes::Guest guest(8 * lib::MiB);
    if (size < 4) return 0;
    std::size_t const initrd_size = std::size_t{data[0]} * 64;
    bool const honest = (data[1] & 1U) != 0;
    std::vector<lib::u8> kernel(data + 4, data + size);
    std::vector<lib::u8> const initrd(initrd_size);
    auto map = guest.map;
    if (!honest) map[2].size = lib::u64{data[2]} << (data[3] & 63U);
    if ((data[1] & 2U) != 0 && kernel.size() > 0x20c) { // past the first checks
        fakes::store(kernel, 0x1fe, 0xaa55, 2);
        fakes::store(kernel, 0x202, 0x53726448, 4);
        fakes::store(kernel, 0x207, 2, 1);
    }
    auto const state = loader::load_linux(
        {.kernel = kernel, .initrd = initrd, .command_line = "quiet", .memory_map = map}, guest.memory());
    if (!state) {
        if (fakes::text_of(state.error()).empty()) std::abort();
        return 0;
    }
    if (!guest.memory().contains(lib::GuestPhys{state->rip & ~lib::u64{0xfff}}, 1)) std::abort();
    if (!guest.memory().contains(lib::GuestPhys{state->rsi}, 4096)) std::abort();
    return 0;
}
