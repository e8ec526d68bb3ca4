// SPDX-License-Identifier: MIT
#include <array>
#include <boot/machine.hpp>
#include <boot/screen.hpp>
#include <drivers/clock_calibration.hpp>
#include <drivers/ioapic.hpp>
#include <drivers/pic.hpp>
#include <drivers/power.hpp>
#include <drivers/rtc.hpp>
#include <drivers/serial.hpp>
#include <kernel/apic.hpp>
#include <kernel/console.hpp>
#include <kernel/cpus.hpp>
#include <kernel/heap.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/instructions.hpp>
#include <manage/virtual_machine.hpp>

namespace boot {
namespace {

// The serial line of the shared console.
class SerialConsolePort final : public kernel::ConsolePort {
public:
    constexpr SerialConsolePort() = default;
    u32 write_some(std::span<u8 const> bytes) override { return serial_.write_some(bytes); }
    u32 read_some(std::span<u8> bytes) override { return serial_.read_some(bytes); }
    void write_all(std::span<u8 const> bytes) override {
        serial_.write({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
    }
    void set_input_wanted(bool wanted) override { serial_.set_rts(wanted); }
    bool start(u16 base, u32 baud) {
        serial_ = drivers::SerialPort(base);
        irq_ = base == drivers::SerialPort::COM1 ? drivers::SerialPort::COM1_gsi : drivers::SerialPort::COM2_gsi;
        return serial_.start(baud).has_value();
    }
    // The UART that firmware uses, at its speed. False, and nothing changed, if it does not answer.
    bool start(drivers::AcpiConsole const& console) {
        constexpr u64 register_count = 8;
        bool const is_port = console.registers.space == drivers::AcpiRegister::Space::SystemIo;
        drivers::SerialPort serial(static_cast<u16>(console.registers.address));
        if (!is_port) {
            auto const mapped =
                kernel::map_device(HostPhys{console.registers.address}, register_count * console.stride);
            if (!mapped) return false;
            serial = drivers::SerialPort::at_memory(mapped->value, console.stride);
        }
        if (!serial.start(drivers::SerialPort::keep_baud)) return false;
        serial_ = serial;
        irq_ = console.irq;
        gsi_ = console.gsi;
        return true;
    }
    // Where its interrupt arrives; none: it is polled.
    std::optional<drivers::AcpiOverride> interrupt_input(drivers::AcpiInfo const& tables) const {
        if (irq_) return tables.isa_irq(*irq_);
        if (!gsi_) return std::nullopt;
        return drivers::AcpiOverride{.isa_irq = 0, .shape = {.is_active_low = true, .is_level = true}, .gsi = *gsi_};
    }
    void interrupt() {
        serial_.serve_interrupt([] { kernel::console().pump(); });
    }
    drivers::SerialPort& serial() { return serial_; }

private:
    drivers::SerialPort serial_{drivers::SerialPort::COM1};
    std::optional<u8> irq_ = drivers::SerialPort::COM1_gsi;
    std::optional<u32> gsi_;
};

// Log lines: to the serial line and the screen.
class LogSink final : public lib::TextSink {
public:
    constexpr LogSink() = default;
    void write(std::string_view text) override;
};
// Panics: the same, without waiting for interrupts.
class PanicSink final : public lib::TextSink {
public:
    constexpr PanicSink() = default;
    void write(std::string_view text) override;
};

constinit SerialConsolePort port;
constinit bool has_serial = false;
constinit LogSink log_sink;
constinit PanicSink panic_sink;
constinit drivers::AcpiInfo acpi{};
constinit drivers::IoApics io_apics;
constinit std::array<u8, sizeof(drivers::Power)> power_storage{};
constinit drivers::Power* power = nullptr;
constinit config::FailureAction on_failure = config::FailureAction::Halt;

void LogSink::write(std::string_view text) {
    kernel::console().write_log(text);
    write_to_screen(text);
}

void PanicSink::write(std::string_view text) {
    if (has_serial) {
        kernel::console().flush();
        drivers::SerialSink(port.serial()).write(text);
    }
    write_to_screen(text);
}

std::span<u8 const> map_physical(HostPhys at, u64 size) {
    if (at.value + size < at.value) return {};
    lib::HostVirt const virt{at.value + kernel::direct_map_base};
    for (u64 page = at.value & ~(lib::page_size - 1); page < at.value + size; page += lib::page_size) {
        // Tables that the memory map does not mention are mapped when somebody points at them.
        lib::HostVirt const here{page + kernel::direct_map_base};
        if (kernel::kernel_page_table().translate(here)) continue;
        if (!kernel::kernel_page_table().map(here, HostPhys{page}, lib::page_size, kernel::Rights::Read)) return {};
    }
    return {reinterpret_cast<u8 const*>(virt.value), size};
}

void read_acpi_tables(Multiboot2 const& information) {
    auto const map = drivers::PhysicalMap::to_function<map_physical>();
    auto rsdp = drivers::parse_rsdp(information.rsdp_new());
    if (!rsdp) rsdp = drivers::parse_rsdp(information.rsdp_old());
    if (!rsdp) rsdp = drivers::find_rsdp(map);
    if (!rsdp || !drivers::read_acpi(*rsdp, map, acpi))
        kernel::refuse_to_start("this machine has no readable ACPI tables", "enable ACPI in the firmware setup");
    kernel::log_info("ACPI: {} CPUs, {} IOAPICs, {}{}", acpi.cpus.size(), acpi.ioapics.size(),
                     acpi.hpet.address.value != 0 ? "HPET, " : "",
                     acpi.rejected_tables == 0 ? "all tables sound" : "some tables unsound, ignored");
}

// Firmware's console by SPCR, unless the user has named one. What was logged before it was known comes again there.
void use_firmware_console(config::Options const& options) {
    if (!acpi.console || options.is_console_chosen) return;
    bool const is_port = acpi.console->registers.space == drivers::AcpiRegister::Space::SystemIo;
    if (has_serial && is_port && acpi.console->registers.address == drivers::SerialPort::COM1) return;
    if (!port.start(*acpi.console)) {
        kernel::log_warning("console: the UART of the firmware's SPCR table, at {:#x}, does not answer",
                            acpi.console->registers.address);
        return;
    }
    has_serial = true;
    drivers::SerialSink sink(port.serial());
    kernel::dump_log(sink);
    kernel::console().set_port(&port);
    kernel::log_info("console: {} {:#x}, as the firmware's", is_port ? "port" : "UART at",
                     acpi.console->registers.address);
}

bool chooses_x2apic() {
    constexpr u32 hypervisor_bit = 31, widest_xapic_id = 0xfe;
    kernel::X2ApicFacts facts{.is_opted_out = acpi.opts_out_of_x2apic,
                              .is_handed_over = kernel::LocalApic::is_handed_over_in_x2apic(),
                              .is_virtual = (lib::x86::cpuid(1).ecx >> hypervisor_bit & 1) != 0};
    for (auto const& cpu : acpi.cpus)
        if (cpu.is_enabled && cpu.apic_id > widest_xapic_id) facts.has_wide_ids = true;
    return kernel::cpu_features().x2apic && kernel::wants_x2apic(facts);
}

void calibrate(config::Options const& options, u64 tsc_at_entry) {
    drivers::ReferenceClocks clocks;
    auto const wants = [&](config::ClockSource source) {
        return options.clock == config::ClockSource::Automatic || options.clock == source;
    };
    if (wants(config::ClockSource::Hpet) && acpi.hpet.address.value != 0) {
        constexpr u64 hpet_registers = 0x400;
        if (auto const mapped = kernel::map_device(acpi.hpet.address, hpet_registers)) clocks.hpet = mapped->value;
    }
    auto const& timer = acpi.fadt.pm_timer;
    if (wants(config::ClockSource::PmTimer) && timer.is_present() &&
        timer.space == drivers::AcpiRegister::Space::SystemIo)
        clocks.pm_timer = drivers::PmTimer::at_port(static_cast<u16>(timer.address), acpi.fadt.pm_timer_is_32_bit);
    clocks.has_pit = wants(config::ClockSource::Pit);
    clocks.may_believe_cpuid = options.clock == config::ClockSource::Automatic;
    auto const found = drivers::calibrate_tsc(clocks);
    if (!found)
        kernel::refuse_to_start("no HPET, ACPI PM timer or PIT answers, and CPUID does not tell the CPU's clock rate",
                                "enable the HPET in the firmware setup, or remove the option clock=");
    kernel::start_clock(found->tsc_hz, tsc_at_entry);
    kernel::log_info("time: TSC at {}.{:03} MHz by the {} (within {} ppm){}", found->tsc_hz / 1'000'000,
                     found->tsc_hz / 1000 % 1000, name_of(found->source), found->error_ppm,
                     found->disagrees_with_cpuid() ? "; CPUID claims another rate and is not believed" : "");
}

void find_ioapics() {
    for (auto const& entry : acpi.ioapics) {
        auto const mapped = kernel::map_device(entry.address, lib::page_size);
        lib::Result<void> added = lib::fail(lib::Errc::NoMemory);
        if (mapped) added = io_apics.add(mapped->value, entry.gsi_base);
        if (!added)
            kernel::log_warning("interrupts: the I/O APIC at {:#x} for GSIs from {} is left out: {}", entry.address,
                                entry.gsi_base, name_of(added.error()));
    }
}

// An interrupt together with the input that it arrives at. Lives as long as the machine.
struct LineInterrupt {
    LineInterrupt(std::string_view name, kernel::InterruptHandler handler, drivers::AcpiOverride const& where)
        : input(io_apics, where.gsi, {where.shape.is_active_low, where.shape.is_level}), interrupt(name, handler) {}
    lib::Result<void> connect(u32 cpu) {
        TRY(input.claim());
        return interrupt.connect(input, cpu);
    }
    drivers::IoApicInput input;
    kernel::Interrupt interrupt;
};

// The serial port's interrupt drains and fills the console.
void connect_serial_interrupt() {
    if (!has_serial) return;
    auto const where = port.interrupt_input(acpi);
    if (!where) return kernel::log_warning("console: the serial line has no interrupt, so it takes no input");
    kernel::Own<LineInterrupt> line(new (std::nothrow) LineInterrupt(
        "serial", kernel::InterruptHandler::to<&SerialConsolePort::interrupt>(port), *where));
    lib::Result<void> connected = lib::fail(lib::Errc::NoMemory);
    if (line) connected = line->connect(kernel::this_cpu().index);
    if (!connected)
        return kernel::log_warning("console: the serial line's interrupt, GSI {}, cannot be had, so the line takes no "
                                   "input: {}",
                                   where->gsi, name_of(connected.error()));
    line.release();
    port.serial().enable_interrupts(true, true);
    kernel::console().set_interrupt_driven();
}

void ignore_interrupt() {}

[[noreturn]] void reset_machine() {
    if (power != nullptr) power->reset();
    lib::x86::lidt({}); // nowhere to go for the next exception: the CPU shuts down, and the machine resets
    __builtin_trap();
}

// The end of a panic or of a start that failed; returns to halt. What can be done depends on how far the start has
// come.
void end_after_failure() {
    switch (on_failure) {
    case config::FailureAction::Halt: return;
    case config::FailureAction::Reboot: reset_machine();
    case config::FailureAction::PowerOff:
        if (power == nullptr) return;
        panic_sink.write("mullion: power off, status 1\r\n");
        if (has_serial) port.serial().drain();
        power->power_off();
    }
}

void finish_output() {
    lib::x86::cli();
    kernel::console().flush();
    if (has_serial) port.serial().drain();
}

} // namespace

drivers::AcpiInfo const& acpi_info() { return acpi; }

kernel::InterruptSource* isa_interrupt(u8 irq) {
    auto const where = acpi.isa_irq(irq);
    kernel::Own<drivers::IoApicInput> input(new (std::nothrow) drivers::IoApicInput(
        io_apics, where.gsi, {where.shape.is_active_low, where.shape.is_level}));
    if (!input || !input->claim()) return nullptr;
    return input.release();
}

void start_early_console(Multiboot2 const* information, config::Options const& options) {
    on_failure = options.on_failure;
    kernel::set_panic_end(end_after_failure);
    // One line: the first that is wanted and there.
    has_serial = (options.com[0].is_wanted && port.start(drivers::SerialPort::COM1, options.com[0].baud)) ||
                 (options.com[1].is_wanted && port.start(drivers::SerialPort::COM2, options.com[1].baud));
    if (has_serial) {
        kernel::console().set_port(&port);
    }
    if (options.screen) start_text_screen(information);
    kernel::set_panic_sink(&panic_sink);
    kernel::set_log_sink(&log_sink);
    kernel::set_log_level(options.log_level);
}

void start_machine(Multiboot2 const& information, config::Options const& options) {
    u64 const tsc_at_entry = lib::x86::rdtsc();
    read_acpi_tables(information);
    use_firmware_console(options);
    if (acpi.has_dual_8259) drivers::retire_pics(0xf0);
    if (!kernel::LocalApic::enable(chooses_x2apic()))
        kernel::refuse_to_start("the local APIC cannot be mapped", "add memory");
    calibrate(options, tsc_at_entry);
    kernel::local_apic().calibrate_timer(kernel::tsc_scale().hz());
    kernel::this_cpu().apic_id = kernel::local_apic().id();
    kernel::set_interrupt_handler(kernel::vectors::timer, kernel::InterruptHandler::to_function<kernel::run_timers>());
    kernel::set_interrupt_handler(kernel::vectors::kick, kernel::InterruptHandler::to_function<ignore_interrupt>());
    kernel::set_interrupt_handler(kernel::vectors::notify, kernel::InterruptHandler::to_function<ignore_interrupt>());
    kernel::start_interrupts();
    find_ioapics();
    connect_serial_interrupt();
    auto const wall = drivers::read_wall_clock(acpi.fadt.century_register);
    if (!wall) kernel::log_warning("time: the machine's RTC does not answer; guests start in 1970");
    manage::set_wall_clock(wall.value_or(0) - kernel::now().value / lib::nanos_per_second);
    constexpr auto map_register = [](HostPhys at, u64 size) -> u64 {
        auto const mapped = kernel::map_device(at, size);
        return mapped ? mapped->value : 0;
    };
    static constinit auto mapper = map_register;
    (void)mapper;
    power = new (power_storage.data()) drivers::Power(acpi, drivers::MmioMap::to_function<+map_register>());
}

void power_off(u32 status) {
    kernel::log_info("mullion: power off, status {}", status);
    finish_output();
    if (power != nullptr) power->power_off();
    panic_sink.write("mullion: the machine does not switch itself off; it is safe to do so by hand\r\n");
    for (;;)
        lib::x86::hlt();
}

void restart() {
    kernel::log_info("mullion: restart");
    finish_output();
    reset_machine();
}

} // namespace boot
