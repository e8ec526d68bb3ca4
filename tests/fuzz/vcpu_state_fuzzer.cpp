// SPDX-License-Identifier: MIT
// Saved states that somebody has tampered with, given to a vCPU of either vendor: some are refused; with all others the
// vCPU can be run and saved again, and nothing faults in the host. A good state is changed at places that the input
// names, as one that is random from end to end would be refused by its first byte.
#include "backends/guest.hpp"
#include "input.hpp"
#include "require.hpp"

#include <memory>

namespace {

using fuzz::Input;
using fuzz::require;
using lib::u16;
using lib::u64;
using lib::u8;
using vm::VcpuState;

template <typename Machine> class Restorer final : public Machine {
public:
    void try_out(Input& input) {
        this->start();
        auto const state = std::make_unique<VcpuState>();
        require(this->guest().save(*state, 0).has_value());
        while (!input.is_empty()) {
            u16 const place = input.take<u16>();
            u8 const count = input.take<u8>() % 16 + 1;
            for (unsigned i = 0; i < count; i++)
                reinterpret_cast<u8*>(state.get())[(place + i) % sizeof(VcpuState)] = input.take<u8>();
        }
        if (state->rip != 0) state->checksum = state->sum(); // now and then one that is wrong
        auto const read = std::make_unique<VcpuState>();
        bool const is_one = VcpuState::read(state->bytes(), *read).has_value();
        auto const restored = this->guest().restore(*read, 0);
        require(is_one || !restored);
        if (!restored) return;
        auto const again = std::make_unique<VcpuState>();
        require(this->guest().save(*again, 0).has_value());
        require(again->registers == state->registers && again->rip == state->rip && again->cr3 == state->cr3 &&
                again->apic.registers == state->apic.registers && again->rflags == state->rflags);
        this->guest().run();
        require(this->guest().save(*again, 0).has_value());
    }
};

template <typename Machine> void try_on(Input& input) {
    Restorer<Machine> machine;
    machine.try_out(input);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    ::testing::GTEST_FLAG(break_on_failure) = true;
    Input input({data, size});
    if (input.take<u8>() % 2 == 0)
        try_on<backends::Intel>(input);
    else
        try_on<backends::Amd>(input);
    return 0;
}
