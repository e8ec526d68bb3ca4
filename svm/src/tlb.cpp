// SPDX-License-Identifier: MIT
#include <kernel/cpus.hpp>
#include <lib/x86/instructions.hpp>
#include <svm/vcpu.hpp>

namespace svm {
namespace {

constinit std::atomic<u64> epoch{1};

} // namespace

u64 flush_epoch() { return epoch.load(std::memory_order_acquire); }

void flush_everywhere() {
    u64 const target = epoch.fetch_add(1, std::memory_order_seq_cst) + 1;
    // A CPU that is in a guest may use old translations until it leaves. It need not do more than leave: it cannot be
    // waiting for us, and it looks at the epoch before it enters again.
    u32 const count = kernel::cpu_count();
    for (u32 i = 0; i < count; i++)
        if (cpu_state(i).presence.may_use_older_than(target)) kernel::kick(i);
    for (u32 i = 0; i < count; i++)
        while (cpu_state(i).presence.may_use_older_than(target))
            lib::x86::pause();
}

} // namespace svm
