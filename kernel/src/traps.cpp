// SPDX-License-Identifier: MIT
#include <array>
#include <kernel/apic.hpp>
#include <kernel/cpu.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/machine_check.hpp>
#include <kernel/panic.hpp>
#include <kernel/traps.hpp>
#include <kernel/user_context.hpp>
#include <lib/format.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

constexpr u8 first_interrupt = 32;
constinit std::array<InterruptHandler, 256> handlers{};

struct ExceptionFixup {
    u64 fault;
    u64 resume;
};
extern "C" ExceptionFixup const exception_fixups_start[];
extern "C" ExceptionFixup const exception_fixups_end[];
extern "C" char const trap_from_user_saved[]; // kernel/src/user_entry.S

constexpr std::array<std::string_view, first_interrupt> exception_names{"divide error (#DE)",
                                                                        "debug exception (#DB)",
                                                                        "non-maskable interrupt",
                                                                        "breakpoint (#BP)",
                                                                        "overflow (#OF)",
                                                                        "bound range (#BR)",
                                                                        "invalid opcode (#UD)",
                                                                        "device not available (#NM)",
                                                                        "double fault (#DF)",
                                                                        "vector 9",
                                                                        "invalid TSS (#TS)",
                                                                        "segment not present (#NP)",
                                                                        "stack fault (#SS)",
                                                                        "general protection (#GP)",
                                                                        "page fault (#PF)",
                                                                        "vector 15",
                                                                        "x87 error (#MF)",
                                                                        "alignment check (#AC)",
                                                                        "machine check (#MC)",
                                                                        "SIMD error (#XM)",
                                                                        "virtualization exception (#VE)",
                                                                        "control protection (#CP)",
                                                                        "vector 22",
                                                                        "vector 23",
                                                                        "vector 24",
                                                                        "vector 25",
                                                                        "vector 26",
                                                                        "vector 27",
                                                                        "hypervisor injection (#HV)",
                                                                        "VMM communication (#VC)",
                                                                        "security exception (#SX)",
                                                                        "vector 31"};

bool apply_fixup(TrapFrame& frame) {
    for (auto const* fixup = exception_fixups_start; fixup < exception_fixups_end; fixup++)
        if (fixup->fault == frame.rip) {
            frame.rip = fixup->resume;
            return true;
        }
    return false;
}

// What struck ring 3 and came on a stack of its own goes the way of everything else that interrupts ring 3: when
// `frame` is returned to, enter_user() returns to its caller.
void leave_user(TrapFrame& frame) {
    u64 const stack = this_cpu().tables.tss.rsp[0]; // the structure is packed
    UserContext& context = UserContext::with_stack(stack);
    context.frame = frame;
    frame.rip = reinterpret_cast<u64>(trap_from_user_saved);
    frame.cs = code_selector;
    frame.rflags = 2;
    frame.rsp = reinterpret_cast<u64>(&context);
    frame.ss = data_selector;
}

} // namespace

std::string_view name_of_exception(u8 vector) { return exception_names[vector]; }

void set_interrupt_handler(u8 vector, InterruptHandler handler) {
    ASSERT(!is_device_vector(vector));
    handlers[vector] = handler;
}

void dispatch_interrupt(u8 vector) {
    if (handlers[vector]) {
        handlers[vector]();
    } else if (is_device_vector(vector)) {
        DeviceVectors& here = this_cpu().device_vectors;
        Interrupt* const owner = here.owners[vector - vectors::first_device].load(std::memory_order_acquire);
        if (owner != nullptr)
            owner->handle();
        else
            here.unexpected.store(here.unexpected.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    // After the handler: a level-triggered input that the device still held at the end would be sent again.
    if (vector != vectors::spurious) local_apic().end_of_interrupt();
}

extern "C" void trap_dispatch(TrapFrame& frame);
extern "C" void trap_dispatch(TrapFrame& frame) {
    auto const vector = static_cast<u8>(frame.vector);
    if (vector >= first_interrupt) {
        dispatch_interrupt(vector);
        return;
    }
    if (vector == lib::x86::exception_mc && (frame.cs & 3) != 0) return leave_user(frame); // Service::run() takes it
    if (vector == lib::x86::exception_mc) {
        auto const check = MachineCheck::take();
        if (check.kind() == MachineCheck::Kind::Elsewhere) return;
        // Whatever struck here, it was Mullion's own work. No lock: it may have struck under any.
        std::array<char, 600> text{};
        lib::BufferSink sink(text);
        lib::format(sink, "{}: ", exception_names[vector]);
        check.print(sink);
        panic_trap(frame, sink.view());
    }
    // Any other NMI belongs to nobody here: platform errors are not ours to repair.
    if (vector == lib::x86::exception_nmi) stop_if_panic_elsewhere();
    if (vector == lib::x86::exception_gp && apply_fixup(frame)) return;
    panic_trap(frame, exception_names[vector]);
}

} // namespace kernel
