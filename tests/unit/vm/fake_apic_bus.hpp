// SPDX-License-Identifier: MIT
#pragma once
// Records what a local APIC asks of the world; time moves only when told.
#include <optional>
#include <vector>
#include <vm/local_apic.hpp>

struct FakeApicBus final : vm::ApicBus {
    vm::u64 now = 1'000'000;
    std::optional<vm::u64> armed;
    std::vector<vm::IpiRequest> sent;
    std::vector<vm::u8> ended;
    unsigned notified = 0, destination_changes = 0;

    vm::u64 guest_tsc() override { return now; }
    void arm_timer(vm::u64 deadline) override { armed = deadline; }
    void disarm_timer() override { armed.reset(); }
    void send_ipi(vm::LocalApic&, vm::IpiRequest const& request) override { sent.push_back(request); }
    void end_of_interrupt(vm::u8 vector) override { ended.push_back(vector); }
    void interrupt_pending(vm::LocalApic&) override { ++notified; }
    void destination_changed(vm::LocalApic&) override { ++destination_changes; }
};
