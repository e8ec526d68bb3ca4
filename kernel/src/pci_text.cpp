// SPDX-License-Identifier: MIT
#include <kernel/pci.hpp>
#include <lib/types.hpp>

namespace kernel {
namespace {

struct Name {
    u8 base, sub;
    std::string_view text;
};

constexpr Name names[] = {
    {0x00, 0x00, "device"},
    {0x00, 0x01, "VGA-compatible device"},
    {0x01, 0x00, "SCSI controller"},
    {0x01, 0x01, "IDE controller"},
    {0x01, 0x04, "RAID controller"},
    {0x01, 0x05, "ATA controller"},
    {0x01, 0x06, "SATA controller"},
    {0x01, 0x07, "SAS controller"},
    {0x01, 0x08, "NVMe controller"},
    {0x02, 0x00, "Ethernet controller"},
    {0x02, 0x07, "InfiniBand controller"},
    {0x03, 0x00, "VGA controller"},
    {0x03, 0x02, "3D controller"},
    {0x04, 0x01, "audio device"},
    {0x04, 0x03, "HD audio device"},
    {0x05, 0x00, "RAM"},
    {0x06, 0x00, "host bridge"},
    {0x06, 0x01, "ISA bridge"},
    {0x06, 0x04, "PCI bridge"},
    {0x06, 0x07, "CardBus bridge"},
    {0x07, 0x00, "serial controller"},
    {0x08, 0x00, "interrupt controller"},
    {0x08, 0x01, "DMA controller"},
    {0x08, 0x02, "timer"},
    {0x08, 0x03, "RTC"},
    {0x08, 0x05, "SD controller"},
    {0x08, 0x06, "IOMMU"},
    {0x0b, 0x40, "coprocessor"},
    {0x0c, 0x00, "FireWire controller"},
    {0x0c, 0x03, "USB controller"},
    {0x0c, 0x05, "SMBus controller"},
    {0x0d, 0x80, "wireless controller"},
};

// [pci/codes] 1, by the base class.
constexpr std::string_view base_names[] = {"device",
                                           "storage controller",
                                           "network controller",
                                           "display controller",
                                           "multimedia device",
                                           "memory controller",
                                           "bridge",
                                           "communication controller",
                                           "system peripheral",
                                           "input device",
                                           "docking station",
                                           "processor",
                                           "serial bus",
                                           "wireless controller",
                                           "intelligent I/O",
                                           "satellite controller",
                                           "encryption device",
                                           "signal processor",
                                           "processing accelerator"};

} // namespace

std::string_view name_of(PciClass const& kind) {
    for (Name const& name : names)
        if (name.base == kind.base && name.sub == kind.sub) return name.text;
    if (kind.base < std::size(base_names)) return base_names[kind.base];
    return "device of an unknown class";
}

void print(lib::TextSink& sink, PciAddress const& address) {
    if (address.segment != 0) lib::format(sink, "{:04x}:", address.segment);
    lib::format(sink, "{:02x}:{:02x}.{}", address.bus, address.device, address.function);
}

} // namespace kernel
