// SPDX-License-Identifier: MIT
// The monitor's commands about the machine's devices.
#include <charconv>
#include <kernel/cpus.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/pci.hpp>
#include <manage/monitor.hpp>

namespace manage {
namespace {

std::string_view name_of(kernel::PciBar const& bar) {
    switch (bar.kind) {
    case kernel::PciBar::Kind::Io: return " ports";
    case kernel::PciBar::Kind::Memory: return bar.is_prefetchable ? ", prefetchable" : "";
    case kernel::PciBar::Kind::Memory64: return bar.is_prefetchable ? ", 64-bit, prefetchable" : ", 64-bit";
    case kernel::PciBar::Kind::None:
    case kernel::PciBar::Kind::Rom: break;
    }
    return "";
}

// In the largest unit that divides it; ports are counted.
void print_size(lib::TextSink& sink, kernel::PciBar const& bar) {
    constexpr std::string_view units[] = {" bytes", " KiB", " MiB", " GiB", " TiB"};
    if (bar.kind == kernel::PciBar::Kind::Io) return lib::format(sink, "{}", bar.size);
    u64 size = bar.size;
    unsigned unit = 0;
    while (size >= 1024 && size % 1024 == 0 && unit + 1 < std::size(units))
        size /= 1024, unit++;
    lib::format(sink, "{}{}", size, units[unit]);
}

} // namespace

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
    lib::format(terminal_, "{}: {}; it stays where it was\n", arguments[0], lib::name_of(error_code));
}

void Monitor::pci_list(Words const&) {
    kernel::Pci* const pci = kernel::machine_pci();
    if (pci == nullptr) return terminal_.write("nobody has looked: Mullion was started with pci=off\n");
    if (pci->count() == 0) return terminal_.write("this machine has no PCI functions\n");
    mode_ = Mode::Pci;
    position_ = 0;
    end_ = pci->count();
    continue_printing();
}

namespace {
std::string_view owner_name(kernel::PciOwner owner) {
    switch (owner) {
    case kernel::PciOwner::Nobody: break;
    case kernel::PciOwner::Kernel: return "Mullion's";
    case kernel::PciOwner::Service: return "the storage service's";
    }
    return "nobody's";
}
} // namespace

// One function a piece, so that a long list comes out as the line takes it.
void Monitor::print_pci(kernel::PciFunction const& function) {
    print(terminal_, function.address);
    lib::format(terminal_, "  {:04x}:{:04x}  {}", function.vendor, function.device, kernel::name_of(function.kind));
    if (function.header == 1)
        lib::format(terminal_, " to buses {:02x}-{:02x}", function.secondary, function.subordinate);
    lib::format(terminal_, "; {}", owner_name(function.owner));
    if (function.was_stopped) terminal_.write(", stopped");
    if (function.message_table != 0) lib::format(terminal_, ", {} MSI-X", function.message_table);
    if (function.messages != 0) lib::format(terminal_, ", {} MSI", function.messages);
    if (function.has_function_reset) terminal_.write(", FLR");
    terminal_.write("\n");
    for (u32 i = 0; i < function.bars.size(); i++) {
        kernel::PciBar const& bar = function.bars[i];
        if (bar.kind == kernel::PciBar::Kind::None) continue;
        if (i == kernel::PciFunction::rom)
            terminal_.write("         ROM    ");
        else
            lib::format(terminal_, "         BAR {}  ", i);
        if (bar.base == 0)
            terminal_.write("no address");
        else
            lib::format(terminal_, "{:#x}", bar.base);
        terminal_.write(", ");
        print_size(terminal_, bar);
        terminal_.write(name_of(bar));
        terminal_.write("\n");
    }
}

} // namespace manage
