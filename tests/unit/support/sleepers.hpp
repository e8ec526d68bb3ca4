// SPDX-License-Identifier: MIT
#pragma once
// Puts the vCPUs of a VM to sleep in a real scheduler, and tells which of them have been woken.
#include <algorithm>
#include <gtest/gtest.h>
#include <kernel/run_loop.hpp>
#include <vector>
#include <vm/vm.hpp>

namespace support {

class Sleepers {
public:
    explicit Sleepers(vm::Vm& vm) : vm_(vm) {
        static bool const is_started = kernel::start_scheduler({}).has_value();
        EXPECT_TRUE(is_started);
        for (lib::u32 i = 0; i < vm.vcpu_count(); i++)
            add(i);
        vm.set_scheduled();
    }
    ~Sleepers() {
        for (lib::u32 i = 0; i < vm_.vcpu_count(); i++)
            EXPECT_TRUE(kernel::scheduler().remove(vm_.vcpu(i))) << i;
    }
    Sleepers(Sleepers const&) = delete;
    Sleepers& operator=(Sleepers const&) = delete;

    // Returns the numbers of the vCPUs that were woken since the last call, and puts them to sleep again.
    std::vector<lib::u32> take_woken() {
        std::vector<lib::u32> woken;
        while (auto* const entity = kernel::scheduler().pick(0, ++now_).entity) {
            woken.push_back(static_cast<vm::Vcpu*>(entity)->id());
            kernel::scheduler().sleep(0, ++now_);
        }
        std::ranges::sort(woken);
        return woken;
    }

private:
    void add(lib::u32 i) {
        kernel::ScheduleSettings settings;
        settings.allowed.add(0);
        EXPECT_TRUE(kernel::scheduler().add(vm_.vcpu(i), settings));
    }

    vm::Vm& vm_;
    lib::u64 now_ = lib::u64{1} << 62; // later than whatever the clock said
};

} // namespace support
