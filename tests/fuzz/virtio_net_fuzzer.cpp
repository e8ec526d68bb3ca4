// SPDX-License-Identifier: MIT
#include "served_virtio.hpp"

#include <platform/virtio_net.hpp>

namespace {

struct Subject {
    using Device = platform::Nic<1>;
    static constexpr lib::u32 queue_count = 2;
    static constexpr lib::u64 features = 0x3000'0000 | lib::service::net_features;
    static void put_facts(platform::MachineFacts& facts) { facts.nics[1] = {{2, 0, 0, 0, 0, 1}, true}; }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size) { return fuzz::run<Subject>(data, size); }
