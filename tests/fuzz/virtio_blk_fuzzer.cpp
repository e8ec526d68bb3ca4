// SPDX-License-Identifier: MIT
#include "served_virtio.hpp"

#include <platform/virtio_blk.hpp>

namespace {

struct Subject {
    using Device = platform::Disk<2>;
    static constexpr lib::u32 queue_count = 3;
    static constexpr lib::u64 features = 0x3000'7646;
    static void put_facts(platform::MachineFacts& facts) { facts.disks[2] = {1000, queue_count, true, false}; }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size) { return fuzz::run<Subject>(data, size); }
