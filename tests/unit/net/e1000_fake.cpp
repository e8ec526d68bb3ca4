// SPDX-License-Identifier: MIT
#include "e1000_fake.hpp"

#include <cstring>

namespace net_test {

namespace {

constexpr u32 CTRL = 0x0000, STATUS = 0x0008, EECD = 0x0010, EERD = 0x0014, CTRL_EXT = 0x0018, ICR = 0x00c0,
              ITR = 0x00c4, IMS = 0x00d0, IMC = 0x00d8, IVAR = 0x00e4, EITR0 = 0x00e8, RCTL = 0x0100, TCTL = 0x0400,
              TIPG = 0x0410, RDBAL = 0x2800, RDLEN = 0x2808, RDH = 0x2810, RDT = 0x2818, RDTR = 0x2820, RADV = 0x282c,
              TDBAL = 0x3800, TDLEN = 0x3808, TDH = 0x3810, TDT = 0x3818, TIDV = 0x3820, TXDCTL = 0x3828, TADV = 0x382c,
              RAL0 = 0x5400, RAH0 = 0x5404;
constexpr u32 master_disable = 1U << 2, reset_bit = 1U << 26, enable = 2, LU = 2, TXOFF = 0x10,
              master_enable = 1U << 19, asserted = 1U << 31;
constexpr u32 TXDW = 1, LSC = 4, RXO = 0x40, RXT0 = 0x80, RXQ0 = 1U << 20, TXQ0 = 1U << 22;

} // namespace

E1000Fake::E1000Fake(E1000Setup const& from)
    : setup(from), shared_(std::make_unique<Page[]>(setup.shared_size / lib::page_size)) {
    set_defaults();
    if (!setup.is_running) return;
    registers_[RCTL] = registers_[TCTL] = enable;
    registers_[IMS] = RXT0 | TXDW;
    registers_[RDBAL] = registers_[TDBAL] = 0xdead'0000;
    registers_[RDLEN] = registers_[TDLEN] = 4096;
    registers_[RDT] = 77;
    registers_[TDH] = registers_[TDT] = 55;
}

// Of registers whose value is undefined after a reset, those that this driver must not depend on have an odd one.
void E1000Fake::set_defaults() {
    registers_ = {{CTRL, 0x201}, {STATUS, 0x80}, {EECD, 0x100}, {EERD, 0},   {CTRL_EXT, 0}, {ICR, 0},
                  {ITR, 0},      {IMS, 0},       {IMC, 0},      {RCTL, 0},   {TCTL, 0},     {TIPG, 0x1234},
                  {RDTR, 3},     {RADV, 4},      {RDBAL, 0},    {0x2804, 7}, {RDLEN, 0},    {RDH, 0},
                  {RDT, 0},      {TDBAL, 0},     {0x3804, 9},   {TDLEN, 0},  {TDH, 0},      {TDT, 0},
                  {TIDV, 5},     {TXDCTL, 0},    {TADV, 6},     {RAL0, 0},   {RAH0, 0}};
    registers_[STATUS] = 0x80 | LU | 1;
    if (is_82574()) {
        registers_[IVAR] = registers_[EITR0] = 0;
        registers_[TCTL] = 0x3000'0000;
        registers_[STATUS] |= master_enable;
    }
    if (!setup.has_receive_address) return;
    auto const& a = setup.address;
    registers_[RAL0] = a[0] | u32{a[1]} << 8 | u32{a[2]} << 16 | u32{a[3]} << 24;
    registers_[RAH0] = a[4] | u32{a[5]} << 8 | 1U << 31;
}

u32 E1000Fake::configuration(u32 offset) {
    if (offset != 0) return 0;
    if (setup.id != 0) return setup.id;
    return is_82574() ? 0x10d3'8086 : 0x100e'8086;
}

void E1000Fake::set_link(bool is_up) {
    registers_[STATUS] = (registers_[STATUS] & ~LU) | (is_up ? LU : 0);
    raise(LSC);
}

bool E1000Fake::check_access(u32 bar, u32 offset, u32 width) {
    if (!require(bar == 0 && width == 4 && offset % 4 == 0 && u64{offset} + 4 <= setup.bar_size,
                 "an access is not one of four bytes in BAR 0"))
        return false;
    require(now >= untouchable_until_, "a register is touched too early after a reset");
    require(now >= reset_until_ || offset == CTRL, "a register other than CTRL is touched during a reset");
    return require(is_known(offset), "there is no such register, or the driver has no business with it");
}

u32 E1000Fake::read(u32 bar, u32 offset, u32 width) {
    if (!check_access(bar, offset, width)) return 0;
    if (gone) return ~0U;
    bool const is_resetting = now < reset_until_ || (setup.never_comes_back && resets != 0);
    switch (offset) {
    case CTRL: return registers_[CTRL] | (is_resetting ? reset_bit : 0);
    case STATUS: {
        u32 value = registers_[STATUS] | (is_paused ? TXOFF : 0);
        bool const is_quiet = (registers_[CTRL] & master_disable) != 0 && now >= quiet_at_ && !setup.never_quiet;
        return is_quiet ? value & ~master_enable : value;
    }
    case EECD: return registers_[EECD] | (now >= nvm_at_ && !setup.never_reads_nvm ? 0x200U : 0);
    case EERD: return read_word_answer();
    case ICR: return read_causes();
    case IMC: wrong("IMC cannot be read"); return 0;
    case RAL0:
    case RAH0: require(!is_82574() || now >= nvm_at_, "the address is read before the NVM was"); [[fallthrough]];
    default: return registers_[offset];
    }
}

void E1000Fake::write(u32 bar, u32 offset, u32 width, u32 value) {
    if (!check_access(bar, offset, width) || gone) return;
    switch (offset) {
    case CTRL: return write_control(value);
    case RCTL: return write_receive_control(value);
    case TCTL: return write_transmit_control(value);
    case EERD: return write_word_request(value);
    case ICR: registers_[ICR] &= ~value; return;
    case IMC: registers_[IMS] &= ~value; return;
    case IMS: {
        u32 const known = is_82574() ? 0x01f7'82d7U : 0x0001'f6dfU;
        require((value & ~known) == 0, "a reserved cause is unmasked");
        u32 const pending = registers_[ICR] & ~registers_[IMS];
        registers_[IMS] |= value;
        if ((pending & value) != 0) has_interrupt_ = true;
        return;
    }
    case STATUS:
    case EECD: return wrong("a register is written that is only read");
    case TXDCTL:
        require(is_82574() ? (value & 1U << 22) != 0 : (value & 0x00c0'c0c0) == 0, "TXDCTL has a forbidden value");
        break;
    case ITR:
    case EITR0:
    case RDTR:
    case RADV:
    case TADV: require(value <= 0xffff, "a time has reserved bits"); break;
    case TIDV: require(value != 0 && value <= 0xffff, "TIDV has a forbidden value"); break;
    case TIPG: require(value >> 30 == 0 && (value & 0x3ff) >= 6, "TIPG has a forbidden value"); break;
    case IVAR:
        require((value & 0x7ff0'f0f0 & ~0x000f'0f0fU) == 0, "IVAR has reserved bits, or queues not in use");
        break;
    default:
        if ((offset >= RDBAL && offset <= RDT) || (offset >= TDBAL && offset <= TDT)) return write_ring(offset, value);
        break;
    }
    registers_[offset] = value;
}

void E1000Fake::write_control(u32 value) {
    u32 const may_change =
        1U << 6 | 1U << 7 | 1U << 11 | 1U << 12 | reset_bit | 1U << 30 | (is_82574() ? master_disable : 0);
    require(((value ^ registers_[CTRL]) & ~may_change) == 0, "a reserved bit of CTRL changes");
    bool const was_disabled = (registers_[CTRL] & master_disable) != 0;
    registers_[CTRL] = value & ~reset_bit;
    if ((value & master_disable) != 0 && !was_disabled) quiet_at_ = now + setup.quiet_us;
    if ((value & reset_bit) != 0) reset();
}

void E1000Fake::reset() {
    require(!bus_master_, "it is reset while it may read and write memory");
    require(((registers_[RCTL] | registers_[TCTL]) & enable) == 0, "it is reset while it sends or receives");
    if (is_82574() && !setup.never_quiet)
        require((registers_[CTRL] & master_disable) != 0 && now >= quiet_at_,
                "it is reset before its requests have ended");
    resets++;
    device_pieces.clear();
    hangs = reads_word_ = false;
    if (setup.ignores_reset) return;
    u32 const link = registers_[STATUS] & LU;
    set_defaults();
    registers_[STATUS] = (registers_[STATUS] & ~LU) | link;
    untouchable_until_ = now + (is_82574() ? 1000 : 1);
    reset_until_ = now + setup.reset_us;
    nvm_at_ = reset_until_ + setup.nvm_us;
}

void E1000Fake::write_receive_control(u32 value) {
    u32 const reserved = is_82574() ? 0x8120'4001U : 0xf920'4c01U;
    require((value & reserved) == 0, "reserved bits of RCTL are set");
    if ((value & enable) != 0) {
        require(bus_master_, "receiving is enabled while memory cannot be written");
        require((registers_[RCTL] & enable) != 0 || registers_[RDH] == registers_[RDT],
                "the ring begins with descriptors");
        require(registers_[RDLEN] != 0 && ring(RDBAL) != nullptr, "there is no ring to receive");
        require((value & 3U << 16) == 0 && (value & 1U << 25) == 0, "buffers are not of 2048 bytes");
    }
    registers_[RCTL] = value;
}

void E1000Fake::write_transmit_control(u32 value) {
    require((value & (is_82574() ? 0x8000'0005U : 0xfc80'0005U)) == 0, "reserved bits of TCTL are set");
    if ((value & enable) != 0) {
        require(bus_master_, "sending is enabled while memory cannot be read");
        require(registers_[TDLEN] != 0 && ring(TDBAL) != nullptr, "there is no ring to send");
        require(!is_82574() || (value & 0x7000'0000) == 0x3000'0000, "fields of TCTL that must stay have changed");
    }
    registers_[TCTL] = value;
}

void E1000Fake::write_ring(u32 offset, u32 value) {
    u32 const base = offset & ~0xfffU;
    u32 const low = base | 0x800;
    bool const is_on = (registers_[base == 0x2000 ? RCTL : TCTL] & enable) != 0;
    u32 const count = registers_[low + 8] / 16;
    if (offset == RDT || offset == TDT) {
        if (!require(value < count, "a tail is beyond its ring")) return;
        if (is_on) return offset == RDT ? give_receive(value) : give_transmit(value);
        require(value == 0, "a tail moves while its ring is off");
    } else {
        require(!is_on, "a ring changes while it is on");
        require(offset != low || value % 16 == 0, "a ring is not aligned");
        require(offset != low + 8 || (value % 128 == 0 && value <= 65536), "the length of a ring is impossible");
        require((offset != RDH && offset != TDH) || value < count, "a head is beyond its ring");
    }
    registers_[offset] = value;
}

u8* E1000Fake::memory(u64 address, u64 size, bool may_be_ram) {
    if (address >= shared_begin && size <= setup.shared_size && address - shared_begin <= setup.shared_size - size)
        return shared_bytes() + (address - shared_begin);
    if (may_be_ram && address >= ram_begin && size <= ram_size && address - ram_begin <= ram_size - size)
        return ram.data() + (address - ram_begin);
    wrong("the device is given memory that is not its own");
    return nullptr;
}

E1000Fake::Descriptor E1000Fake::load(u32 base, u32 index) {
    Descriptor descriptor{};
    if (u8 const* const at = ring(base)) std::memcpy(&descriptor, at + u64{index} * 16, 16);
    return descriptor;
}
void E1000Fake::store(u32 base, u32 index, Descriptor const& descriptor) {
    if (u8* const at = ring(base)) std::memcpy(at + u64{index} * 16, &descriptor, 16);
}

// Descriptors from the old tail to the new one become the device's. None of them may be its already, and the tail may
// not come back to the head, as the ring would then be empty.
void E1000Fake::give_receive(u32 tail) {
    u32 const count = registers_[RDLEN] / 16, head = registers_[RDH], old = registers_[RDT];
    u32 const owned = (old + count - head) % count, given = (tail + count - old) % count;
    if (!require(owned + given < count, "buffers are given that the device has already")) return;
    for (u32 i = old; i != tail; i = (i + 1) % count) {
        Descriptor const descriptor = load(RDBAL, i);
        require(descriptor.status == 0, "a descriptor is given whose status is set");
        u64 const rings = shared_begin + 2 * lib::page_size;
        require(memory(descriptor.address, 2048, false) != nullptr && descriptor.address >= rings,
                "a buffer is no memory for it");
        require(device_pieces.insert(descriptor.address).second, "a buffer is given twice");
    }
    registers_[RDT] = tail;
}

void E1000Fake::give_transmit(u32 tail) {
    u32 const count = registers_[TDLEN] / 16, head = registers_[TDH], old = registers_[TDT];
    u32 const owned = (old + count - head) % count, given = (tail + count - old) % count;
    if (!require(owned + given < count, "descriptors to send are given that the device has already")) return;
    bool is_first = true;
    u64 size = 0;
    for (u32 i = old; i != tail; i = (i + 1) % count)
        check_transmit(load(TDBAL, i), is_first, size);
    require(is_first, "the tail is in the middle of a frame");
    registers_[TDT] = tail;
}

void E1000Fake::check_transmit(Descriptor const& descriptor, bool& is_first, u64& size) {
    require((descriptor.command & ~0x0b) == 0 && descriptor.offset == 0 && descriptor.start == 0 &&
                descriptor.special == 0,
            "a descriptor to send has reserved bits, or asks for what the driver does not use");
    require(descriptor.status == 0, "a descriptor to send has a status");
    require(descriptor.length != 0 && descriptor.length <= 16288, "a piece has an impossible size");
    (void)memory(descriptor.address, descriptor.length, true);
    size = (is_first ? 0 : size) + descriptor.length;
    is_first = (descriptor.command & 1) != 0;
    if (!is_first) return;
    require((descriptor.command & 2) != 0, "a frame goes without its checksum");
    require(size >= 17 && size <= 1518, "a frame is too short or too long");
}

void E1000Fake::write_word_request(u32 value) {
    require(!reads_word_ || now >= word_at_, "a word is asked for while another one is read");
    require((value & 1) != 0 && (value & ~(is_82574() ? 0xfffdU : 0xff01U)) == 0, "EERD has reserved bits");
    reads_word_ = true;
    word_at_ = now + setup.word_us;
    registers_[EERD] = value;
}

u32 E1000Fake::read_word_answer() {
    u32 const value = registers_[EERD];
    if (!reads_word_ || now < word_at_ || setup.never_reads_word) return value;
    u32 const word = is_82574() ? value >> 2 & 0x3fff : value >> 8 & 0xff;
    if (!require(word < 3, "a word is read that is none of the address")) return value;
    u32 const data = setup.address[2 * word] | u32{setup.address[2 * word + 1]} << 8;
    return (value & 0xffff & ~1U) | data << 16 | (is_82574() ? 2U : 0x10U);
}

u32 E1000Fake::read_causes() {
    u32 const value = registers_[ICR];
    if (!is_82574() || !setup.has_msix || registers_[IMS] == 0) registers_[ICR] = 0;
    return value == 0 ? 0 : value | (is_82574() ? asserted : 0);
}

// A message goes out for a cause that was not there yet.
void E1000Fake::raise(u32 causes) {
    u32 const fresh = causes & ~registers_[ICR];
    registers_[ICR] |= causes;
    if ((fresh & registers_[IMS]) == 0) return;
    has_interrupt_ = true;
    interrupts++;
}

void E1000Fake::step() {
    if (gone || now < reset_until_ || !bus_master_) return;
    if ((registers_[RCTL] & enable) != 0) step_receive();
    bool const can_send = !hangs && !is_paused && (registers_[STATUS] & LU) != 0;
    if (can_send && (registers_[TCTL] & enable) != 0) step_send();
}

void E1000Fake::step_send() {
    u32 const count = registers_[TDLEN] / 16;
    Bytes frame;
    while (registers_[TDH] != registers_[TDT]) {
        u32 const at = registers_[TDH];
        Descriptor descriptor = load(TDBAL, at);
        u8 const* const bytes = memory(descriptor.address, descriptor.length, true);
        if (bytes == nullptr) return;
        frame.insert(frame.end(), bytes, bytes + descriptor.length);
        registers_[TDH] = (at + 1) % count;
        if ((descriptor.command & 8) != 0) {
            descriptor.status = 1;
            store(TDBAL, at, descriptor);
            raise(TXDW | (is_82574() ? TXQ0 : 0));
        }
        if ((descriptor.command & 1) == 0) continue;
        sent.push_back(std::move(frame));
        frame.clear();
    }
}

void E1000Fake::step_receive() {
    u32 const count = registers_[RDLEN] / 16;
    for (; !incoming.empty(); incoming.pop_front()) {
        Incoming const& frame = incoming.front();
        u32 const parts = frame.is_split ? 2 : 1;
        if ((registers_[RDT] + count - registers_[RDH]) % count < parts) {
            missed++;
            raise(RXO);
            continue;
        }
        for (u32 part = 0; part < parts; part++) {
            u32 const at = registers_[RDH];
            Descriptor descriptor = load(RDBAL, at);
            u8* const buffer = memory(descriptor.address, 2048, false);
            if (buffer == nullptr) return;
            device_pieces.erase(descriptor.address);
            std::memcpy(buffer, frame.bytes.data(), frame.bytes.size());
            u32 const length = frame.forged_length != 0 ? frame.forged_length : static_cast<u32>(frame.bytes.size());
            bool const is_end = part + 1 == parts;
            descriptor = {.address = descriptor.address,
                          .length = static_cast<u16>(length),
                          .offset = 0,
                          .command = 0,
                          .status = static_cast<u8>(is_end ? 3 : 1),
                          .start = frame.errors,
                          .special = 0};
            // In a descriptor of a received frame, bytes 10 and 11 are a checksum, 12 the status, 13 the errors.
            store(RDBAL, at, descriptor);
            registers_[RDH] = (at + 1) % count;
        }
        raise(RXT0 | (is_82574() ? RXQ0 : 0));
    }
}

} // namespace net_test
