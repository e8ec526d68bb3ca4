// SPDX-License-Identifier: MIT
// The start of an e1000 or e1000e, and its way back after a reset. [intel/8254x] 14 [intel/82574] 4
//
// Bochs ignores the reset, as QEMU once did, so every register that the driver depends on is written.
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>

#include "e1000_layout.hpp"

namespace net {

using namespace e1000;

namespace {

// How long what is under way may take to end, and how long no register may be touched after a reset: 82540EM asks for
// 1 us, 82574L for 1 ms. [intel/8254x] 13.4, CTRL.RST [intel/82574] 4
constexpr u64 quiet_ms = 10, quiet_limit_ms = 100, reset_pause_ms = 5, reset_limit_ms = 1'000, nvm_limit_ms = 1'000,
              word_limit_ms = 100;

constexpr bool is_station(Address const& address) {
    return (address[0] & 1) == 0 && std::ranges::any_of(address, [](u8 byte) { return byte != 0; });
}

} // namespace

void E1000::wait(Step step, u64 now, u64 pause, u64 limit) {
    step_ = step;
    not_before_ = now + milliseconds(pause);
    step_limit_ = now + milliseconds(limit);
}

void E1000::start(u64 now) {
    if (now < not_before_) return;
    not_before_ = now + milliseconds(1);
    switch (step_) {
    case Step::Begin: return begin(now);
    case Step::WaitForQuiet: return reset_chip(now);
    case Step::WaitForReset: return look_for_reset(now);
    case Step::WaitForNvm: return look_for_nvm(now);
    case Step::ReadAddress: return look_for_word(now);
    }
}

// Another driver may have left it running, with memory that is not its own any more.
void E1000::begin(u64 now) {
    function_.set_bus_master(false);
    u32 const id = function_.configuration(0);
    if (id != id_82540em && id != id_82574l) return fail("is of a kind that this driver does not know");
    chip_ = id == id_82540em ? Chip::I82540 : Chip::I82574;
    if (function_.bar_size(0) < registers_size) return fail("has too few registers");
    if (shared_.bytes.size() < memory_needed) return fail("got too little memory");
    if (read(STATUS) == all_ones) return fail("does not answer");
    write(IMC, all_ones);
    write(RCTL, 0);
    write(TCTL, Tctl{}.with<Tctl::PSP>(true).raw);
    if (chip_ == Chip::I82574) write(CTRL, Ctrl{{read(CTRL)}}.with<Ctrl::GIO_MASTER_DISABLE>(true).raw);
    wait(Step::WaitForQuiet, now, quiet_ms, quiet_limit_ms);
}

// A reset while requests are under way can hang the bus of 82574L; after the limit there is no better way.
// [intel/82574] 10, CTRL and STATUS: GIO Master Disable and Enable
void E1000::reset_chip(u64 now) {
    bool const must_wait = chip_ == Chip::I82574 && now < step_limit_;
    if (must_wait && Status{{read(STATUS)}}.get<Status::GIO_MASTER_ENABLE>()) return;
    write(CTRL, Ctrl{{read(CTRL)}}.with<Ctrl::RST>(true).raw);
    wait(Step::WaitForReset, now, reset_pause_ms, reset_limit_ms);
}

void E1000::look_for_reset(u64 now) {
    Ctrl const control{{read(CTRL)}};
    if (control.raw == all_ones) return fail("is gone");
    if (!control.get<Ctrl::RST>()) {
        wait(Step::WaitForNvm, now, 0, nvm_limit_ms);
        return look_for_nvm(now);
    }
    if (now >= step_limit_) fail("does not come out of its reset");
}

void E1000::look_for_nvm(u64 now) {
    not_before_ = now + milliseconds(1);
    if (chip_ == Chip::I82540 || Eecd{{read(EECD)}}.get<Eecd::AUTO_RD>()) return find_address(now);
    if (now >= step_limit_) fail("does not read its memory of settings");
}

// The reset fills the first receive address from the EEPROM; if it has not, the words are read there.
void E1000::find_address(u64 now) {
    write(IMC, all_ones);
    (void)read(ICR);
    if (has_address_) return set_up(now);
    u32 const low = read(RAL0);
    Rah const high{{read(RAH0)}};
    for (u32 i = 0; i < address_.size(); i++)
        address_[i] = static_cast<u8>((low | u64{high.raw} << 32) >> 8 * i);
    has_address_ = high.get<Rah::AV>() && is_station(address_);
    if (has_address_) return set_up(now);
    words_ = 0;
    read_word(now);
}

void E1000::read_word(u64 now) {
    Eerd request{};
    request.set<Eerd::START>(true);
    if (chip_ == Chip::I82540)
        request.set<Eerd::ADDR_82540>(words_);
    else
        request.set<Eerd::ADDR_82574>(words_);
    write(EERD, request.raw);
    wait(Step::ReadAddress, now, 1, word_limit_ms);
}

void E1000::look_for_word(u64 now) {
    Eerd const answer{{read(EERD)}};
    bool const is_done = chip_ == Chip::I82540 ? answer.get<Eerd::DONE_82540>() : answer.get<Eerd::DONE_82574>();
    if (answer.raw == all_ones) return fail("is gone");
    if (!is_done) {
        if (now >= step_limit_) fail("does not answer when its address is read");
        return;
    }
    u32 const word = answer.get<Eerd::DATA>();
    address_[2 * words_] = static_cast<u8>(word);
    address_[2 * words_ + 1] = static_cast<u8>(word >> 8);
    words_++;
    if (2 * words_ < address_.size()) return read_word(now);
    if (!is_station(address_)) return fail("has no address");
    has_address_ = true;
    set_up(now);
}

void E1000::set_up(u64 now) {
    std::memset(shared_.bytes.data(), 0, receive_buffers_at);
    Ctrl control{{read(CTRL)}};
    control.set<Ctrl::GIO_MASTER_DISABLE>(false);
    control.set<Ctrl::SLU>(true);
    control.set<Ctrl::ILOS>(false);
    control.set<Ctrl::FRCSPD>(false);
    control.set<Ctrl::FRCDPLX>(false);
    control.set<Ctrl::VME>(false);
    write(CTRL, control.raw);
    if (chip_ == Chip::I82574) write(CTRL_EXT, CtrlExt{{read(CTRL_EXT)}}.with<CtrlExt::DRV_LOAD>(true).raw);
    function_.set_bus_master(true);
    set_up_transmit();
    set_up_receive();
    write(ITR, interrupt_gap);
    if (chip_ == Chip::I82574) {
        write(EITR0, interrupt_gap);
        write(IVAR, every_cause_sends_message_0);
    }
    state_ = State::Ready;
    set_up_interrupts();
    next_poll_ = now;
    pause_ = 0;
    look_at_status(now);
}

void E1000::set_up_receive() {
    receive_next_ = released_ = 0;
    is_held_ = is_middle_ = false;
    for (u32 i = 0; i < receive_count; i++)
        received(i).address = shared_.address + receive_buffers_at + i * buffer_size;
    u64 const ring = shared_.address + receive_ring_at;
    write(RDBAL, static_cast<u32>(ring));
    write(RDBAH, static_cast<u32>(ring >> 32));
    write(RDLEN, receive_count * sizeof(ReceiveDescriptor));
    write(RDH, 0);
    write(RDT, 0);
    write(RDTR, 0);
    write(RADV, 0);
    Rctl control{};
    control.set<Rctl::EN>(true);
    control.set<Rctl::UPE>(true);
    control.set<Rctl::MPE>(true);
    control.set<Rctl::BAM>(true);
    control.set<Rctl::SECRC>(true);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    write(RCTL, control.raw);
    write(RDT, receive_count - 1);
}

void E1000::set_up_transmit() {
    tail_ = rung_tail_ = used_ = next_room_ = used_rooms_ = 0;
    u64 const ring = shared_.address + transmit_ring_at;
    write(TDBAL, static_cast<u32>(ring));
    write(TDBAH, static_cast<u32>(ring >> 32));
    write(TDLEN, transmit_count * sizeof(TransmitDescriptor));
    write(TDH, 0);
    write(TDT, 0);
    write(TIDV, shortest_transmit_delay);
    write(TADV, 0);
    bool const is_82574 = chip_ == Chip::I82574;
    Txdctl reports{};
    reports.set<Txdctl::GRAN>(true);
    reports.set<Txdctl::MUST_BE_ONE>(is_82574);
    write(TXDCTL, reports.raw);
    Tipg gaps{}; // as both manuals advise
    gaps.set<Tipg::IPGT>(is_82574 ? 8 : 10);
    gaps.set<Tipg::IPGR1>(8);
    gaps.set<Tipg::IPGR2>(6);
    write(TIPG, gaps.raw);
    Tctl control{{read(TCTL)}}; // 82574L has more fields, whose values are right after a reset
    control.set<Tctl::EN>(true);
    control.set<Tctl::PSP>(true);
    control.set<Tctl::CT>(15);
    control.set<Tctl::COLD>(64);
    write(TCTL, control.raw);
}

// That a frame was sent is told only if somebody waits for it: memory in rooms is taken back when it is needed.
void E1000::set_up_interrupts() {
    if (!has_interrupt_) return;
    Causes causes{};
    causes.set<Causes::LSC>(true);
    causes.set<Causes::RXDMT0>(true);
    causes.set<Causes::RXO>(true);
    causes.set<Causes::RXT0>(true);
    causes.set<Causes::TXDW>(reports_sent_);
    if (chip_ == Chip::I82574) {
        causes.set<Causes::RXQ0>(true);
        causes.set<Causes::OTHER>(true);
        causes.set<Causes::TXQ0>(reports_sent_);
    }
    write(IMS, causes.raw);
}

} // namespace net
