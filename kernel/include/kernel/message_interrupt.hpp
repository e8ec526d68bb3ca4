// SPDX-License-Identifier: MIT
#pragma once
// The interrupt of a PCI function that sends it as a message: by the first entry of its MSI-X table where it has one,
// else by MSI. The other entries stay masked. [pci/3.0] 6.8
#include <kernel/interrupts.hpp>
#include <kernel/pci.hpp>

namespace kernel {

class MessageInterrupt final : public InterruptSource {
public:
    MessageInterrupt() = default;
    // Of a function that has been claimed; once. Unsupported: it sends no messages. BadFormat: its table lies nowhere.
    // NoMemory.
    lib::Result<void> open(Pci& pci, PciFunction const& function);
    // The part of a BAR in which the table is and that nobody else may write to: [begin, end), whole pages. Empty if
    // it is not in this BAR.
    struct Range {
        u64 begin = 0, end = 0;
    };
    Range table_in(unsigned bar) const { return bar == table_bar_ ? table_ : Range{}; }

    // kernel::InterruptSource
    lib::Result<void> set_target(InterruptTarget target) override;
    void set_masked(bool masked) override;
    bool is_underway() override;
    bool keeps_while_masked() const override { return has_table() || has_mask_; }

private:
    static constexpr unsigned nowhere = ~0U;
    struct Entry { // [pci/3.0] 6.8.2
        u32 address, address_high, data, control;
    };

    bool has_table() const { return entries_ != nullptr; }
    lib::Result<void> open_table(PciFunction const& function);
    void open_capability();
    PciConfig& config() const { return pci_->config(); }

    Pci* pci_ = nullptr;
    PciAddress at_;
    u32 capability_ = 0; // its offset
    // MSI-X
    Entry volatile* entries_ = nullptr;
    unsigned table_bar_ = nowhere;
    Range table_;
    // MSI
    bool is_wide_ = false, has_mask_ = false;
};

} // namespace kernel
