// SPDX-License-Identifier: MIT
#include <bit>
#include <platform/pic.hpp>

namespace platform {
namespace {

constexpr u8 cascade = 1U << 2; // the slave's output is the master's IR2
constexpr u8 icw1_select = 0x10, icw1_ic4 = 0x01;
constexpr u8 icw4_aeoi = 0x02, icw4_sfnm = 0x10;
constexpr u8 ocw3_select = 0x08, ocw3_ris = 0x01, ocw3_rr = 0x02, ocw3_poll = 0x04, ocw3_smm = 0x20, ocw3_esmm = 0x40;
constexpr u8 elcr_master = 0xf8, elcr_slave = 0xde; // IRQ 0, 1, 2, 8 and 13 are always edges [intel/piix] ELCR

constexpr u8 bit_of(u32 input) { return static_cast<u8>(1U << (input & 7)); }

} // namespace

void Pic8259A::reset(bool is_master, u8 vector_base) {
    state = {};
    state.is_master = is_master;
    state.vector_base = vector_base;
    state.lowest = 7;
    state.imr = 0xff;
}

void Pic8259A::set_line(u32 input, bool level) {
    u8 const bit = bit_of(input);
    bool const is_level = (state.elcr & bit) != 0 || (state.is_master != 0 && bit == cascade);
    bool const was = (state.lines & bit) != 0;
    if (level) {
        state.lines |= bit;
        if (is_level || !was) state.irr |= bit;
    } else {
        // An input must stay high until its INTA; a request that goes away earlier is spurious. [intel/8259a]
        state.lines &= static_cast<u8>(~bit);
        state.irr &= static_cast<u8>(~bit);
    }
}

// How far the most urgent of `set` is from the top; 8 when empty.
u32 Pic8259A::rank(u8 set) const {
    if (set == 0) return 8;
    return static_cast<u32>(std::countr_zero(std::rotr(set, (state.lowest + 1) & 7)));
}

int Pic8259A::pending() const {
    if (state.init_step != 0) return none;
    u32 const request = rank(static_cast<u8>(state.irr & ~state.imr));
    if (request == 8) return none;
    u8 blocking = state.isr;
    if (state.special_mask != 0) blocking &= static_cast<u8>(~state.imr);
    if (state.fully_nested != 0 && state.is_master != 0) blocking &= static_cast<u8>(~cascade);
    if (request >= rank(blocking)) return none;
    return static_cast<int>((request + state.lowest + 1) & 7);
}

void Pic8259A::acknowledge(u32 input) {
    u8 const bit = bit_of(input);
    if (state.auto_eoi == 0)
        state.isr |= bit;
    else if (state.rotate_on_auto_eoi != 0)
        state.lowest = static_cast<u8>(input & 7);
    bool const is_level = (state.elcr & bit) != 0 || (state.is_master != 0 && bit == cascade);
    if (!is_level) state.irr &= static_cast<u8>(~bit);
}

void Pic8259A::end(u8 inputs, bool rotate) {
    if (inputs == 0) return;
    u32 const input = (rank(inputs) + state.lowest + 1) & 7;
    state.isr &= static_cast<u8>(~bit_of(input));
    if (rotate) state.lowest = static_cast<u8>(input);
}

void Pic8259A::write_icw1(u8 value) {
    u8 const level = state.is_master != 0 ? static_cast<u8>(state.elcr | cascade) : state.elcr;
    state.irr = static_cast<u8>(state.lines & level); // the edge sense circuit starts anew
    state.isr = 0;
    state.imr = 0;
    state.lowest = 7;
    state.special_mask = state.read_isr = state.poll = 0;
    state.auto_eoi = state.rotate_on_auto_eoi = state.fully_nested = 0;
    state.needs_icw4 = value & icw1_ic4;
    state.init_step = 2;
}

void Pic8259A::write_ocw2(u8 value) {
    u8 const input = value & 7;
    u8 const nonspecific = state.special_mask != 0 ? static_cast<u8>(state.isr & ~state.imr) : state.isr;
    switch (value >> 5) { // R, SL, EOI
    case 0: state.rotate_on_auto_eoi = 0; break;
    case 1: end(nonspecific, false); break;
    case 2: break; // no operation
    case 3: state.isr &= static_cast<u8>(~bit_of(input)); break;
    case 4: state.rotate_on_auto_eoi = 1; break;
    case 5: end(nonspecific, true); break;
    case 6: state.lowest = input; break;
    default:
        state.isr &= static_cast<u8>(~bit_of(input));
        state.lowest = input;
        break;
    }
}

void Pic8259A::write_ocw3(u8 value) {
    if ((value & ocw3_esmm) != 0) state.special_mask = (value & ocw3_smm) != 0;
    if ((value & ocw3_poll) != 0)
        state.poll = 1;
    else if ((value & ocw3_rr) != 0)
        state.read_isr = value & ocw3_ris;
}

void Pic8259A::write(u32 a0, u8 value) {
    if (a0 == 0) {
        if ((value & icw1_select) != 0) return write_icw1(value);
        if ((value & ocw3_select) != 0) return write_ocw3(value);
        return write_ocw2(value);
    }
    switch (state.init_step) {
    case 2:
        state.vector_base = value & 0xf8;
        state.init_step = 3;
        break;
    case 3: state.init_step = state.needs_icw4 != 0 ? 4 : 0; break; // ICW3: the wiring is fixed
    case 4:
        state.auto_eoi = (value & icw4_aeoi) != 0;
        state.fully_nested = (value & icw4_sfnm) != 0;
        state.init_step = 0;
        break;
    default: state.imr = value; break;
    }
}

u8 Pic8259A::poll() {
    state.poll = 0;
    int const input = pending();
    if (input == none) return 0;
    acknowledge(static_cast<u32>(input));
    return static_cast<u8>(0x80 | input);
}

u8 Pic8259A::read(u32 a0) {
    if (a0 != 0) return state.imr;
    return state.read_isr != 0 ? state.isr : state.irr;
}

IoReply PicPair::io(IoRequest const& request) {
    u8 const value = static_cast<u8>(request.data);
    u32 const a0 = static_cast<u32>(request.offset & 1);
    if (request.region == Elcr) {
        Pic8259A& chip = a0 == 0 ? master_ : slave_;
        if (request.op == Op::Read) return {chip.state.elcr};
        chip.state.elcr = value & (a0 == 0 ? elcr_master : elcr_slave);
        chip.state.irr |= static_cast<u8>(chip.state.lines & chip.state.elcr);
        update();
        return {};
    }
    Pic8259A& chip = request.region == Master ? master_ : slave_;
    if (request.op == Op::Read) return {read(chip, a0)};
    u8 const mask = chip.state.imr;
    chip.write(a0, value);
    update();
    if (chip.state.imr != mask && masks_changed_) masks_changed_();
    return {};
}

u8 PicPair::read(Pic8259A& chip, u32 a0) {
    if (chip.state.poll != 0) {
        u8 const answer = chip.poll();
        update();
        return answer;
    }
    if (a0 == 0 && chip.state.read_isr == 0 && irr_read_) irr_read_();
    return chip.read(a0);
}

void PicPair::update() {
    master_.set_line(2, slave_.has_output());
    bool const level = master_.has_output();
    if (level == intr_) return;
    intr_ = level;
    wires_.set_intr_line(level);
}

void PicPair::set_line(u32 irq, bool level) {
    if (irq >= 16 || irq == 2) return;
    Pic8259A& chip = irq < 8 ? master_ : slave_;
    if (((chip.state.lines & bit_of(irq)) != 0) == level) return;
    chip.set_line(irq & 7, level);
    update();
}

u8 PicPair::acknowledge() {
    int const input = master_.pending();
    if (input == Pic8259A::none) return static_cast<u8>(master_.state.vector_base + 7);
    master_.acknowledge(static_cast<u32>(input));
    u8 vector = static_cast<u8>(master_.state.vector_base + input);
    if (input == 2) {
        int const behind = slave_.pending();
        if (behind != Pic8259A::none) slave_.acknowledge(static_cast<u32>(behind));
        vector = static_cast<u8>(slave_.state.vector_base + (behind == Pic8259A::none ? 7 : behind));
    }
    // INTR drops with every INTA, so a second pending request is a new edge for whoever waits for edges.
    if (intr_) {
        intr_ = false;
        wires_.set_intr_line(false);
    }
    update();
    return vector;
}

bool PicPair::is_masked(u32 irq) const {
    Pic8259A const& chip = irq < 8 ? master_ : slave_;
    bool const behind_mask = irq >= 8 && (master_.state.imr & cascade) != 0;
    return behind_mask || (chip.state.imr & bit_of(irq)) != 0;
}

void PicPair::set_level_triggered(u32 irq, bool level) {
    Pic8259A& chip = irq < 8 ? master_ : slave_;
    if (level)
        chip.state.elcr |= bit_of(irq);
    else
        chip.state.elcr &= static_cast<u8>(~bit_of(irq));
}

void PicPair::reset() {
    u8 const master_lines = master_.state.lines, slave_lines = slave_.state.lines;
    master_.reset(true, 0x08);
    slave_.reset(false, 0x70);
    master_.state.lines = master_lines; // what drives them is reset by itself
    slave_.state.lines = slave_lines;
    update();
}

PicPair::State PicPair::save() const { return {master_.state, slave_.state, intr_, {}}; }

lib::Result<void> PicPair::restore(State const& state) {
    for (Pic8259A::State const* chip : {&state.master, &state.slave})
        if (chip->lowest > 7 || chip->init_step > 4) return lib::fail(lib::Errc::BadFormat);
    if (state.master.is_master != 1 || state.slave.is_master != 0 || state.intr > 1)
        return lib::fail(lib::Errc::BadFormat);
    master_.state = state.master;
    slave_.state = state.slave;
    intr_ = state.intr != 0;
    return {};
}

} // namespace platform
