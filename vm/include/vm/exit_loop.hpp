// SPDX-License-Identifier: MIT
#pragma once
// What follows each exit until the guest is entered again. A backend's vCPU has handle_exit(), before_entry(),
// take_backend_requests(), deliver_events() and is this struct's friend. It is a template so that these calls are
// direct: as virtual ones they cost an interrupt 17 instructions.
#include <vm/vcpu.hpp>

namespace vm {

template <typename Backend> struct ExitLoop {
    using After = Vcpu::After;

    // Handles the exit. Enter: enter the guest again. Called by the backend's assembly loop.
    [[gnu::always_inline]] static bool after_exit(Backend& vcpu) {
        if (vcpu.exit_times() != nullptr) [[unlikely]]
            return measured_after_exit(vcpu);
        return go_on(vcpu);
    }
    // Does what the router's answer asks for.
    [[gnu::noinline]] static After finish(Backend& vcpu, Outcome outcome, Exit const& exit) {
        switch (outcome) {
        case Outcome::Advance: vcpu.advance(exit.length); return After::Enter;
        case Outcome::Retry: return After::Enter;
        case Outcome::Inject:
            vcpu.has_exception_ = false;
            vcpu.inject_exception(vcpu.pending_exception_);
            return After::Enter;
        case Outcome::Sleep:
            if (vcpu.advance(exit.length)) return After::Enter; // the step's trap ends the HLT
            vcpu.activity_ = Activity::Halted;
            look_again(vcpu); // what waits already ends the HLT
            return After::Enter;
        case Outcome::Yield: vcpu.advance(exit.length); return vcpu.leave(kernel::RunResult::Yield);
        case Outcome::StopVm: break;
        }
        return vcpu.leave(kernel::RunResult::Stopped);
    }
    // Looks up the requests before an entry.
    [[gnu::noinline]] static After prepare_entry(Backend& vcpu) {
        u32 const now = vcpu.take_requests();
        vcpu.take_backend_requests(now);
        bool const woken = vcpu.deliver_events();
        if (vcpu.activity_ == Activity::Halted && woken) vcpu.activity_ = Activity::Running;
        if (vcpu.activity_ != Activity::Running || vcpu.nmi_pending_ || vcpu.put_off_debug_trap_) look_again(vcpu);
        if ((now & request::leave) != 0) return vcpu.leave(kernel::RunResult::Work);
        if (vcpu.activity_ != Activity::Running) return vcpu.leave(kernel::RunResult::Sleep);
        return After::Enter;
    }

private:
    static void look_again(Backend& vcpu) { vcpu.requests_.fetch_or(request::look_again, std::memory_order_relaxed); }
    // Inlined although it stands in two places: a call would cost the usual exit ten instructions.
    [[gnu::always_inline]] static bool go_on(Backend& vcpu) {
        [[clang::always_inline]] return vcpu.handle_exit() == After::Enter && vcpu.before_entry() == After::Enter;
    }
    [[gnu::noinline]] static bool measured_after_exit(Backend& vcpu) {
        return vcpu.measured([&] { return vcpu.handle_exit() == After::Enter && vcpu.before_entry() == After::Enter; });
    }
};

} // namespace vm
