// SPDX-License-Identifier: MIT
#pragma once
// The locks of kernel/src/scheduler*.cpp. Cores are locked one at a time, or two by rising index.
#include <kernel/scheduler.hpp>

namespace kernel {

class Scheduler::CoreLock {
public:
    explicit CoreLock(Core& core) : guard_(core.lock) {}

private:
    LockGuard<decltype(Core::lock)> guard_;
};

class Scheduler::PairLock {
public:
    PairLock(Core& a, Core& b) : first_(a.index < b.index ? a : b), second_(a.index < b.index ? b : a) {
        first_.lock.lock();
        if (&first_ != &second_) second_.lock.lock_second();
    }
    ~PairLock() {
        if (&first_ != &second_) second_.lock.unlock_second();
        first_.lock.unlock();
    }
    PairLock(PairLock const&) = delete;
    PairLock& operator=(PairLock const&) = delete;

private:
    Core& first_;
    Core& second_;
};

// The core that an entity belongs to, which may change until the lock is held.
class Scheduler::HomeLock {
public:
    HomeLock(Scheduler& scheduler, SchedulerEntity& entity) {
        for (;;) {
            u32 const home = entity.home_.load(std::memory_order_relaxed);
            core_ = &scheduler.cores_[home];
            core_->lock.lock();
            if (entity.home_.load(std::memory_order_relaxed) == home) return;
            core_->lock.unlock();
        }
    }
    ~HomeLock() { core_->lock.unlock(); }
    HomeLock(HomeLock const&) = delete;
    HomeLock& operator=(HomeLock const&) = delete;
    Core& core() { return *core_; }

private:
    Core* core_;
};

} // namespace kernel
