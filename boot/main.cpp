// The composition root: from GRUB's hand-off to the first guest instruction.
#include <boot/command_line.hpp>
#include <boot/image.hpp>
#include <boot/memory_setup.hpp>
#include <boot/multiboot2.hpp>
#include <drivers/serial.hpp>
#include <kernel/console.hpp>
#include <kernel/cpu.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>
#include <lib/x86/instructions.hpp>

namespace boot {
namespace {

constinit drivers::SerialPort com1{drivers::SerialPort::COM1};

} // namespace

extern "C" void boot_main(lib::u32 information_at);
extern "C" void boot_main(lib::u32 information_at) {
    static kernel::Cpu cpu;
    cpu.self = &cpu;
    lib::x86::wrmsr(0xc0000101, reinterpret_cast<u64>(&cpu));
    drivers::SerialSink serial(com1);
    if (com1.start()) kernel::set_panic_sink(&serial);
    kernel::set_log_sink(&serial);
    kernel::detect_cpu_features();
    auto const* const bytes = kernel::phys_to_virt<u8>(HostPhys{information_at});
    auto const size = Multiboot2::total_size({bytes, 8});
    auto const information = Multiboot2::parse({bytes, size.value_or(0)});
    if (!information) kernel::refuse_to_start("the loader's boot information is damaged", "boot with GRUB 2's multiboot2 command");
    auto const summary = set_up_memory(*information, HostPhys{information_at}, *size);
    if (!summary) kernel::refuse_to_start("setting up memory failed", "add memory");
    kernel::build_idt();
    kernel::initialise_cpu(cpu, 0);
    kernel::enable_cpu_protections();
    kernel::log_info("Mullion: {} MiB RAM, {} KiB image", summary->ram / lib::MiB, summary->own_image / 1024);
    kernel::log_info("free {} KiB meta {}", kernel::memory_use().free / 1024, kernel::memory_use().metadata);
    *reinterpret_cast<volatile int*>(8) = 1;
}

} // namespace boot
