// SPDX-License-Identifier: MIT
// Microcode files of both makers: no read outside of the file, and only updates that lie in it, are newer, and are for
// the CPU. The first byte picks the maker, the next the CPU.
#include <drivers/microcode.hpp>

#include <cstdint>
#include <cstdlib>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size) {
    if (size < 2) return 0;
    drivers::MicrocodeTarget const target{
        .is_amd = (data[0] & 1) != 0, .signature = data[1], .platform_flags = 1U << (data[0] >> 1 & 7), .revision = 1};
    std::vector<lib::u8> const file(data + 2, data + size); // its own allocation, so that a sanitizer sees the edges
    auto const found = drivers::find_microcode(file, target);
    if (!found) return 0;
    bool const is_inside =
        found->bytes.data() >= file.data() && found->bytes.data() + found->bytes.size() <= file.data() + file.size();
    bool const is_newer = target.is_amd ? found->revision > 1 : static_cast<std::int32_t>(found->revision) > 1;
    if (!is_inside || !is_newer || found->bytes.empty()) std::abort();
    return 0;
}
