// The monitor's commands about the machine's devices.
#include <charconv>
#include <kernel/cpus.hpp>
#include <kernel/interrupts.hpp>
#include <manage/monitor.hpp>

namespace manage {

void Monitor::irq_list(Words const&) {
    lib::format(terminal_, "{:<16} {:>4} {:>7} {:>12}\n", "interrupt", "CPU", "vector", "handled");
    kernel::InterruptStatus status;
    for (u32 i = 0; kernel::interrupt_status(i, status); i++)
        lib::format(terminal_, "{:<16} {:>4}    0x{:02x} {:>12}\n", status.name, status.cpu, status.vector,
                    status.count);
    u32 unexpected = 0;
    for (u32 i = 0; i < kernel::cpu_count(); i++)
        unexpected += kernel::cpu(i).device_vectors.unexpected.load(std::memory_order_relaxed);
    if (unexpected != 0) lib::format(terminal_, "{} came for no device\n", unexpected);
}

void Monitor::irq_move(Words const& arguments) {
    u32 cpu = 0;
    std::string_view const text = arguments[1];
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpu);
    if (error != std::errc() || end != text.data() + text.size() || cpu >= kernel::cpu_count())
        return lib::format(terminal_, "irq move: expected a CPU from 0 to {}, found {}\n", kernel::cpu_count() - 1,
                           text);
    auto const result = kernel::move_interrupt(arguments[0], cpu);
    if (result) return lib::format(terminal_, "{}: CPU {}\n", arguments[0], cpu);
    lib::Errc const error_code = result.error();
    if (error_code == lib::Errc::NotFound)
        return lib::format(terminal_, "there is no interrupt {}; try irq list\n", arguments[0]);
    if (error_code == lib::Errc::Unsupported)
        return lib::format(terminal_,
                           "{}: CPU {} has an APIC id above {}; devices reach such CPUs by interrupt remapping only, "
                           "which Mullion does not use\n",
                           arguments[0], cpu, kernel::widest_interrupt_apic_id);
    if (error_code == lib::Errc::Busy)
        return lib::format(terminal_, "{}: CPU {} has no vector left\n", arguments[0], cpu);
    lib::format(terminal_, "{}: {}; it stays where it was\n", arguments[0], name_of(error_code));
}

} // namespace manage
