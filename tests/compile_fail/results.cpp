// SPDX-License-Identifier: MIT
// A result is looked at, and a switch over outcomes forgets none.
#include <kernel/frame_allocator.hpp>
#include <kernel/spinlock.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/result.hpp>
#include <vm/exit.hpp>

lib::Result<void> may_fail();
lib::Result<int> number();

lib::Result<int> use([[maybe_unused]] kernel::FrameAllocator& frames, [[maybe_unused]] vm::Outcome outcome);
lib::Result<int> use([[maybe_unused]] kernel::FrameAllocator& frames, [[maybe_unused]] vm::Outcome outcome) {
#if WRONG == 1 // expect: ignoring return value
    may_fail();
#elif WRONG == 2 // expect: ignoring return value
    frames.allocate(0);
#elif WRONG == 3 // expect: no viable conversion
    int const value = number();
    (void)value;
#elif WRONG == 4 // expect: ignoring return value
    lib::FixedVector<int, 2> list;
    list.push_back(1);
#elif WRONG == 5 // expect: enumeration value
    switch (outcome) {
    case vm::Outcome::Retry: break;
    }
#elif WRONG == 6 // expect: call to deleted constructor
    kernel::Spinlock<kernel::LockRank::Vm> const lock;
    kernel::Spinlock<kernel::LockRank::Vm> const copy(lock);
#elif WRONG == 7 // expect: 'data_' is a private member
    kernel::Guarded<int, kernel::LockRank::Log> guarded;
    guarded.data_ = 5;
#else
    TRY(may_fail());
    (void)frames.allocate(0);
#endif
    return TRY(number());
}
